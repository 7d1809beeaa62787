"""An HTTP/1.1 server, plain or over TLS, that prints one JSON line for each connection and each request.

web.py ADDRESS PORT [CERTIFICATE KEY]. It prints {"port": N} when it listens.
Below /git/ with --root: git's own server of what lies there (git-http-backend(1)).
GET /hello, /bytes/N, /chunked, /slow, /forever; /ws is a WebSocket that says everything back, /ws/FILE one that says that file (below --root, at most 125 bytes) first, in frames of every kind; PUT and POST anything: the answer is the digest of the body. Other paths: files below --root, a directory's index.html; with ?gzip compressed for who takes it.
"""
import argparse, base64, gzip, hashlib, http.server, json, os, socketserver, ssl, subprocess, sys, threading, time

lock = threading.Lock()
BLOCK = hashlib.shake_256(b"agentcontainer").digest(1 << 20)


def say(**what):
    with lock:
        print(json.dumps(what), flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def heard(self, **more):
        sni = getattr(self.connection, "asked_for", None)
        say(kind="request", method=self.command, path=self.path, host=self.headers.get("Host"), sni=sni,
            headers=dict(self.headers.items()), peer=self.client_address[0], **more)

    def answer(self, body, kind="text/plain", **headers):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.heard()
        path = self.path.split("?")[0]
        if options.root and path.startswith("/git/"):
            self.git(b"")
        elif path == "/hello":
            self.answer(f"hello from {self.headers.get('Host')}\n".encode())
        elif path.startswith("/bytes/"):
            count = int(path.split("/")[2])
            self.send_response(200)
            self.send_header("Content-Length", str(count))
            self.end_headers()
            digest = hashlib.sha256()
            while count:
                part = BLOCK[:count]
                self.wfile.write(part)
                digest.update(part)
                count -= len(part)
            say(kind="sent", path=path, sha256=digest.hexdigest())
        elif path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(10):
                part = f"part {number}\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                time.sleep(0.02)
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/slow":
            self.send_response(200)
            self.send_header("Content-Length", "20")
            self.end_headers()
            for _ in range(20):
                self.wfile.write(b".")
                time.sleep(0.1)
        elif path == "/forever":
            self.forever()
        elif path == "/echo-headers":
            self.answer(str(self.headers).encode())
        elif path == "/ws":
            self.websocket()
        elif options.root and path.startswith("/ws/"):
            with open(os.path.join(options.root, os.path.basename(path)), "rb") as file:
                self.websocket(file.read())
        else:
            self.file(path)

    def forever(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"1\r\n.\r\n")
                time.sleep(0.02)
        except OSError:
            say(kind="ended", host=self.headers.get("Host"), path=self.path, at=time.time())

    def websocket(self, first=b""):
        key = self.headers["Sec-WebSocket-Key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key).digest()).decode())
        self.end_headers()
        self.close_connection = True
        if first:
            cut = len(first) * 3 // 4
            for head, part in (0x81, first), (1, first[:cut]), (0x89, first), (0, b""), (0x80, first[cut:]), (0x82, first):
                self.wfile.write(bytes([head, len(part)]) + part)
        while head := self.rfile.read(2):
            length = head[1] & 127
            if length > 125:
                length = int.from_bytes(self.rfile.read(2 if length == 126 else 8), "big")
            mask = self.rfile.read(4)
            frame = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(length)))
            say(kind="frame", host=self.headers.get("Host"), opcode=head[0] & 15, bytes=length)
            long = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big") if length < 65536 else b"\x7f" + length.to_bytes(8, "big")
            self.wfile.write(head[:1] + long + frame)
            if head[0] & 15 == 8:
                return

    def file(self, path):
        root = os.path.realpath(options.root) if options.root else None
        full = root and os.path.realpath(os.path.join(root, path.lstrip("/")))
        if full and full.startswith(root + "/") and os.path.isdir(full):
            full = os.path.join(full, "index.html")
        if full and full.startswith(root + "/") and os.path.isfile(full):
            with open(full, "rb") as file:
                body, more = file.read(), {}
            if self.path.endswith("?gzip") and "gzip" in self.headers.get("Accept-Encoding", ""):
                body, more = gzip.compress(body), {"Content_Encoding": "gzip"}
            self.answer(body, "text/html" if full.endswith(".html") else "application/octet-stream", **more)
        else:
            body = b"no such thing\n"
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def git(self, body):
        path, _, query = self.path.partition("?")
        told = {
            "GIT_PROJECT_ROOT": options.root, "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": self.command, "PATH_INFO": path,
            "QUERY_STRING": query, "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env={**os.environ, **told})
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        said = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(said.pop("Status", "200").split()[0]))
        for name, value in said.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pieces(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            part = self.rfile.read(min(left, 1 << 20))
            if not part:
                return
            left -= len(part)
            yield part

    def do_POST(self):
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if options.root and self.path.startswith("/git/"):
            self.heard()
            return self.git(b"".join(self.pieces()))
        digest, count, start = hashlib.sha256(), 0, b""
        for part in self.pieces():
            digest.update(part)
            count += len(part)
            start = (start + part)[:4096]
        self.heard(bytes=count, sha256=digest.hexdigest(), start=start.decode("latin-1"))
        self.answer(f"{digest.hexdigest()} {count}\n".encode())

    do_PUT = do_POST


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    allow_reuse_address = True

    def handle_error(self, *_):
        pass

    def process_request_thread(self, request, address):
        if options.certificate:
            request.settimeout(30)
            try:
                request = context.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError) as error:
                say(kind="no-handshake", error=str(error))
                return self.shutdown_request(request)
            request.settimeout(None)
        super().process_request_thread(request, address)

    def verify_request(self, request, address):
        say(kind="connection", peer=address[0], peer_port=address[1])
        return True


def asked(connection, name, _):
    connection.asked_for = name


parser = argparse.ArgumentParser()
parser.add_argument("address")
parser.add_argument("port", type=int)
parser.add_argument("certificate", nargs="?")
parser.add_argument("key", nargs="?")
parser.add_argument("--root")
options = parser.parse_args()
if options.certificate:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.certificate, options.key)
    context.sni_callback = asked
server = Server((options.address, options.port), Handler)
# The test that started this has its other end: when it is gone, so is this.
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
say(port=server.server_address[1])
server.serve_forever()
