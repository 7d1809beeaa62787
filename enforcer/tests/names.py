"""names.py N: asks DNS for n0.example.test to nN-1.example.test, all at once and twice each, as a browser would. Prints how many were
answered with an address, and the answers that were none."""
import select
import socket
import struct
import sys
import time

count = int(sys.argv[1])
sockets = []
for number in range(count):
    labels = f"n{number}.example.test".split(".")
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    query = struct.pack(">HHHHHH", number, 0x100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)
    it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    it.connect(("198.18.0.2", 53))
    sockets.append((it, query))
poll = select.poll()
for it, query in sockets:
    poll.register(it, select.POLLIN)
for it, query in sockets:
    it.send(query)
    it.send(query)
answered, other, by = set(), {}, {it.fileno(): number for number, (it, _) in enumerate(sockets)}
began = time.monotonic()
while len(answered) < count and time.monotonic() - began < 8:
    for file, _ in poll.poll(500):
        number = by[file]
        answer = sockets[number][0].recv(2048)
        if answer[3] & 15 == 0 and answer[7] == 1:
            answered.add(number)
        else:
            other[answer[3] & 15] = other.get(answer[3] & 15, 0) + 1
print("answered", len(answered), "of", count)
print("other answers, by code:", other, "in", round(time.monotonic() - began, 2), "s")
