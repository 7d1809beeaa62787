"""An HTTPS server on 127.0.0.1 that answers what it was told to, for services that are asked a few things in turn.

scripted.py CERTIFICATE KEY ANSWERS, where ANSWERS is JSON: {"POST /path": [[STATUS, BODY], ...]}; each of a list once, the last one ever
after; what is not among them is 404. It prints {"port": N}, then one JSON line for each request.
"""
import http.server, json, os, ssl, sys, threading

CERTIFICATE, KEY = sys.argv[1:3]
ANSWERS = json.loads(sys.argv[3])
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        what = f"{self.command} {self.path}"
        with lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            print(json.dumps({"line": what, "headers": headers, "body": body}), flush=True)
            answers = ANSWERS.get(what, [[404, {}]])
            status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET


class Server(http.server.ThreadingHTTPServer):
    def finish_request(self, request, client_address):
        with context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server = Server(("127.0.0.1", 0), Handler)
# The test that started this has its other end: when it is gone, so is this.
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(json.dumps({"port": server.server_address[1]}), flush=True)
server.serve_forever()
