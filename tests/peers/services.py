"""Stand-ins, over TLS, for what an agent talks to: the APIs of its model and a registry of npm packages. One JSON line a request.

services.py ADDRESS PORT CERTIFICATE KEY PACKAGES. It prints {"port": N} when it listens.
Which service is asked is the Host's to say: api.anthropic.com, api.openai.com, generativelanguage.googleapis.com; any other name is the
registry, which serves the tarballs in the directory PACKAGES and describes them by the package.json in each.
"""
import base64, functools, hashlib, http.server, json, os, re, socketserver, ssl, sys, tarfile, threading, time, urllib.parse

ADDRESS, PORT, CERTIFICATE, KEY, PACKAGES = sys.argv[1:6]
ANSWER = "the stand-in answers"
lock = threading.Lock()


def say(**what):
    with lock:
        print(json.dumps(what), flush=True)


@functools.cache
def described(path, changed):
    with tarfile.open(path) as tar:
        manifest = json.load(tar.extractfile("package/package.json"))
    digest = hashlib.sha512()
    with open(path, "rb") as content:
        while part := content.read(1 << 20):
            digest.update(part)
    return {**manifest, "dist": {"integrity": "sha512-" + base64.b64encode(digest.digest()).decode()}}


def packages():
    """Name to version to (file, manifest), of the tarballs that are there now."""
    found = {}
    for file in sorted(os.listdir(PACKAGES)):
        if not file.endswith(".tgz"):
            continue
        path = os.path.join(PACKAGES, file)
        manifest = described(path, os.stat(path).st_mtime_ns)
        found.setdefault(manifest["name"], {})[manifest["version"]] = (path, manifest)
    return found


def events(*of):
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in of).encode()


def anthropic():
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "stand-in", "content": [], "stop_reason": None,
               "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
    return events(
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ANSWER}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"})


def openai():
    text = {"type": "output_text", "text": ANSWER, "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}
    usage = {"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 4,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5}
    response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
    return events(
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "content": []}},
        {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": ANSWER},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**response, "status": "completed", "output": [item], "usage": usage}})


def gemini():
    part = {"candidates": [{"content": {"role": "model", "parts": [{"text": ANSWER}]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 4, "totalTokenCount": 5}}
    return f"data: {json.dumps(part)}\r\n\r\n".encode()


MODELS = {"api.anthropic.com": ("/v1/messages", anthropic), "api.openai.com": ("/v1/responses", openai),
          "generativelanguage.googleapis.com": (":streamGenerateContent", gemini)}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 120

    def log_message(self, *_):
        pass

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        host, path = self.headers.get("Host", ""), urllib.parse.urlsplit(self.path).path
        body = self.body()
        say(kind="request", method=self.command, host=host, path=path, headers={name.lower(): value for name, value in self.headers.items()},
            body=body.decode(errors="replace"))
        if host not in MODELS:
            return self.registry(host, urllib.parse.unquote(path).strip("/"))
        place, made = MODELS[host]
        if self.command == "POST" and path.endswith(place):
            # A person who looks around meanwhile lets it go on by removing the file.
            if hold := re.search(rb"hold:([-/.\w]+):", body):
                while os.path.exists(hold[1]):
                    time.sleep(0.05)
            return self.answer(200, "text/event-stream", made())
        if path.endswith(":generateContent"):
            return self.answer(200, "application/json", made()[len("data: "):])
        self.answer(404 if self.command != "HEAD" else 200, "application/json", b"{}")

    do_HEAD = do_POST = do_PUT = do_GET

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            out = b""
            while count := int(self.rfile.readline(), 16):
                out += self.rfile.read(count)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def registry(self, host, path):
        if path.startswith("-/tarball/"):
            name, version = path[len("-/tarball/"):].rsplit("@", 1)
            file, _ = packages()[name][version]
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(os.path.getsize(file)))
            self.end_headers()
            with open(file, "rb") as content:
                while part := content.read(1 << 20):
                    self.wfile.write(part)
            return
        versions = packages().get(path)
        if not versions:
            return self.answer(404, "application/json", b'{"error":"not found"}')
        all = {}
        for version, (_, manifest) in versions.items():
            url = f"https://{host}/-/tarball/{path}@{version}"
            all[version] = {**manifest, "dist": {**manifest["dist"], "tarball": url}}
        latest = sorted(versions)[-1]
        self.answer(200, "application/json",
                    json.dumps({"name": path, "dist-tags": {"latest": latest}, "versions": all}).encode())


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(CERTIFICATE, KEY)
        super().__init__(address, Handler)

    def finish_request(self, request, client_address):
        with self.context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request, client_address):
        pass


threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server = Server((ADDRESS, int(PORT)))
say(port=server.server_address[1])
server.serve_forever()
