"""Times from a request to the first event, one request behind the other on one connection: load.py HOST PORT COUNT. Says the median
and the 99th percentile, in nanoseconds."""
import socket, ssl, sys, time

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
connection = socket.create_connection((host, port), 10)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
# Whom the certificate is by is not what is measured.
connection = ssl._create_unverified_context().wrap_socket(connection, server_hostname=host)
request = f"GET /events HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
times = []
for _ in range(count):
    began, heard = time.perf_counter_ns(), b""
    connection.sendall(request)
    while b"data: 1\n\n" not in heard:
        part = connection.recv(65536)
        if not part:
            sys.exit(f"the stream ended: {heard}")
        heard += part
    times.append(time.perf_counter_ns() - began)
    # One that waited for the second shows in its time.
    if b" 200 " not in heard:
        sys.exit(f"another answer than was expected: {heard}")
    while not heard.endswith(b"\r\n0\r\n\r\n"):
        heard += connection.recv(65536)
times.sort()
print(times[len(times) // 2], times[len(times) * 99 // 100])
