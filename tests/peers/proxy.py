"""proxy.py ADDRESS PORT TO: a forward proxy that knows CONNECT and nothing else. Prints its port, then a line for each CONNECT: the target
that it was asked for. Whatever name that is, it leads to TO, at the port that was asked for."""
import os, socket, sys, threading

listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print(listener.getsockname()[1], flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        if not byte:
            return
        head += byte
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    print(method, target, flush=True)
    if method != "CONNECT":
        client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
        return
    with socket.create_connection((sys.argv[3], int(target.rsplit(":", 1)[1]))) as server:
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=copy, args=(server, client))
        back.start()
        copy(client, server)
        back.join()


def one(client):
    with client:
        serve(client)


while True:
    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()
