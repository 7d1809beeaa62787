"""dial.py tcp|udp HOST PORT PAYLOAD: sends the payload and prints what came back, or the name of the error and where it arose."""
import errno, socket, sys

kind, host, port, payload = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode()
step = "resolve"
try:
    family, _, _, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
    step = "socket"
    it = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    it.settimeout(20)
    step = "connect"
    if kind == "tcp":
        it.connect(address)
    step = "send"
    it.sendall(payload) if kind == "tcp" else it.sendto(payload, address)
    step = "receive"
    back = b""
    while len(back) < len(payload):
        part = it.recv(65536)
        if not part:
            break
        back += part
    print("answer", back.decode("latin-1"))
except socket.gaierror as error:
    print("error", step, socket.EAI_NONAME == error.errno and "NONAME" or error.errno)
except TimeoutError:
    print("error", step, "TIMEOUT")
except OSError as error:
    print("error", step, errno.errorcode.get(error.errno, error.errno))
