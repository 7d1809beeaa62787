"""stress.py THREADS ROUNDS KIND=NAME:PORT...: each thread makes ROUNDS connections of each kind and checks every answer. Prints how
many were made, the slowest in milliseconds, and a line for each that was not answered as it has to be."""
import socket
import sys
import threading
import time

threads, rounds, kinds = int(sys.argv[1]), int(sys.argv[2]), [word.split("=") for word in sys.argv[3:]]
lock = threading.Lock()
made, slowest, wrong = 0, 0.0, []


def hello(name):
    """A ClientHello for the name, written by the machine's own TLS."""
    import ssl
    context, out = ssl.create_default_context(), ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return out.read()


def once(kind, name, port):
    address = socket.getaddrinfo(name, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    with socket.socket() as it:
        it.settimeout(30)
        it.connect(address)
        if kind == "http":
            it.sendall(f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode())
            back = it.recv(4096)
            return None if back.startswith(b"HTTP/1.1 200") else back
        sent = hellos[name] if kind == "tls" else b"hello"
        it.sendall(sent)
        back = b""
        while len(back) < len(sent):
            part = it.recv(4096)
            if not part:
                break
            back += part
        return None if back == sent else back


def run():
    global made, slowest
    for _ in range(rounds):
        for kind, place in kinds:
            name, port = place.rsplit(":", 1)
            began = time.monotonic()
            try:
                answer = once(kind, name, int(port))
            except OSError as error:
                answer = repr(error)
            took = time.monotonic() - began
            with lock:
                made += 1
                slowest = max(slowest, took)
                if answer is not None:
                    wrong.append((kind, round(took, 2), answer[:80]))


hellos = {place.rsplit(":", 1)[0]: hello(place.rsplit(":", 1)[0]) for kind, place in kinds if kind == "tls"}
running = [threading.Thread(target=run) for _ in range(threads)]
for one in running:
    one.start()
for one in running:
    one.join()
print("made", made, "slowest", round(slowest * 1000), "wrong", len(wrong))
for one in wrong[:20]:
    print(*one)
