"""Dials NAME PORT as long as the file GO is there; each attempt must end as WANT (answered, refused). Prints how many
attempts were made and how many ended otherwise."""
import os
import socket
import sys

name, port, go, want = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
address = (socket.gethostbyname(name), port)
attempts = wrong = 0
while os.path.exists(go):
    attempts += 1
    with socket.socket() as s:
        try:
            s.connect(address)
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            got = "answered" if s.recv(99).startswith(b"HTTP/1.1 200") else "closed unanswered"
        except PermissionError:
            got = "refused"
        except OSError as error:
            got = repr(error)
    if got != want:
        wrong += 1
        print("wrong:", attempts, got, file=sys.stderr)
# One write: the two that run side by side share a pipe.
os.write(1, f"{name} {attempts} {wrong}\n".encode())
