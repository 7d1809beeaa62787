"""What the far side sends as /events: far.py SOCKET. One event, and a second 20 ms later."""
import socketserver, sys, time


def chunk(text):
    return b"%x\r\n%s\r\n" % (len(text), text)


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        self.wfile.write(head + chunk(b"data: 1\n\n"))
        time.sleep(0.02)
        self.wfile.write(chunk(b"data: 2\n\n") + b"0\r\n\r\n")


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Server(sys.argv[1], Handler).serve_forever()
