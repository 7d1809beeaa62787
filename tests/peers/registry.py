"""A front of a real registry that answers as it is told to: with the referrers API that the real one lacks, with a login, slowly,
cut off, with other bytes, elsewhere. Told by lines of JSON on standard input; says what it was asked by lines of JSON on standard
output. Arguments: its port (0: any), the real registry's port."""

import base64
import hashlib
import http.client
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

real = int(sys.argv[2])
mode = {}
lock = threading.Lock()
counts = {}


def say(**what):
    with lock:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def ask(method, path, headers, body):
    connection = http.client.HTTPConnection("127.0.0.1", real, timeout=60)
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, response.getheaders(), data


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers, data, length=None):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        if length is not None:
            self.close_connection = True

    def login(self):
        wanted = mode.get("login")
        if not wanted or self.path.startswith("/token"):
            return True
        sent = self.headers.get("Authorization", "")
        host = self.headers.get("Host")
        if wanted["kind"] == "basic":
            good = "Basic " + base64.b64encode(wanted["pair"].encode()).decode()
            if sent == good:
                return True
            self.answer(401, [("WWW-Authenticate", 'Basic realm="front"')], b"")
            return False
        name = re.match(r"/v2/(.+)/(manifests|blobs|referrers)/", self.path)
        action = "pull" if self.command in ("GET", "HEAD") else "pull,push"
        scope = f"repository:{name.group(1)}:" if name else "none"
        if sent.startswith("Bearer "):
            token = base64.b64decode(sent[7:]).decode()
            if token.startswith(scope) and (action == "pull" or token.endswith("pull,push")):
                return True
        realm = wanted.get("realm", f"http://{host}/token")
        self.answer(401, [("WWW-Authenticate", f'Bearer realm="{realm}",service="front",scope="{scope}{action}"')], b"{}")
        return False

    def token(self):
        wanted = mode.get("login", {})
        sent = self.headers.get("Authorization", "")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        good = "Basic " + base64.b64encode(wanted.get("pair", "").encode()).decode()
        if sent != good and f"refresh_token={wanted.get('identity')}" not in body:
            return self.answer(401, [], b"{}")
        from urllib.parse import parse_qs, urlparse

        fields = parse_qs(urlparse(self.path).query) or parse_qs(body)
        token = base64.b64encode(fields["scope"][0].encode()).decode()
        self.answer(200, [("Content-Type", "application/json")], json.dumps({"token": token, "expires_in": 300}).encode())

    def referrers(self, name, digest):
        """The index under the tag that stands in for the API, as the API would answer."""
        status, _, data = ask("GET", f"/v2/{name}/manifests/{digest.replace(':', '-')}", {"Accept": "application/vnd.oci.image.index.v1+json"}, None)
        index = json.loads(data) if status == 200 else {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
        page = mode.get("page")
        headers = [("Content-Type", "application/vnd.oci.image.index.v1+json")]
        if page:
            at = int(re.search(r"at=(\d+)", self.path).group(1)) if "at=" in self.path else 0
            rest = index["manifests"][at + page:]
            index["manifests"] = index["manifests"][at:at + page]
            if rest or mode.get("endless"):
                headers.append(("Link", f'</v2/{name}/referrers/{digest}?at={at + page}>; rel="next"'))
        self.answer(200, headers, json.dumps(index).encode())

    def handle_any(self):
        say(method=self.command, path=self.path, authorization=self.headers.get("Authorization"), range=self.headers.get("Range"))
        if "delay" in mode:
            time.sleep(mode["delay"])
        if not self.login():
            return
        if self.path.startswith("/token"):
            return self.token()
        for pattern, do in mode.get("at", {}).items():
            if not re.search(pattern, self.path):
                continue
            with lock:
                seen = counts[pattern] = counts.get(pattern, 0) + 1
            if seen > do.get("times", 1 << 30):
                continue
            if "together" in do:
                # Nobody is answered before so many wait.
                until = time.time() + 10
                while counts.get(pattern, 0) < do["together"] and time.time() < until:
                    time.sleep(0.005)
                if counts.get(pattern, 0) < do["together"]:
                    return self.answer(404, [], b"")
                continue
            if "status" in do:
                return self.answer(do["status"], [tuple(h) for h in do.get("headers", [])], do.get("body", "").encode())
            if "hang" in do:
                time.sleep(do["hang"])
                return
            if "body" in do:
                data = base64.b64decode(do["body"])
                return self.answer(200, [("Content-Type", do.get("type", "application/octet-stream"))], data)
            status, headers, data = ask(self.command, self.path, self.passed(), None)
            if "flip" in do:
                data = data[:-1] + bytes([data[-1] ^ 1])
                return self.answer(status, headers, data)
            if "cut" in do:
                begin = 0
                sent = self.headers.get("Range")
                return self.answer(status, headers, data[begin:do["cut"]], length=len(data))
            if "pieces" in do:
                # In so many, a moment apart.
                self.send_response_only(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                size = -(-len(data) // do["pieces"])
                for at in range(0, len(data), size):
                    self.wfile.write(data[at:at + size])
                    time.sleep(0.1)
                return
            if "longer" in do:
                return self.answer(status, headers, data, length=len(data) + do["longer"])
            if "endless" in do:
                self.send_response_only(200)
                self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                try:
                    for _ in range(do["endless"]):
                        self.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                except OSError:
                    pass
                self.close_connection = True
                return
        found = re.match(r"/v2/(.+)/referrers/(sha256:[0-9a-f]{64})", self.path)
        if found:
            if mode.get("referrers"):
                return self.referrers(found.group(1), found.group(2))
            return self.answer(404, [], b"404 page not found\n")
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else None
        status, headers, data = ask(self.command, self.path, self.passed(), body)
        if mode.get("referrers") and self.command == "PUT" and "/manifests/" in self.path and status == 201:
            manifest = json.loads(body)
            if "subject" in manifest:
                self.index(manifest, body)
                headers.append(("OCI-Subject", manifest["subject"]["digest"]))
        if self.command == "HEAD":
            length = next((int(v) for n, v in headers if n.lower() == "content-length"), 0)
            return self.answer(status, headers, b"", length=length) if length else self.answer(status, headers, b"")
        self.answer(status, headers, data)

    def index(self, manifest, body):
        name = re.match(r"/v2/(.+)/manifests/", self.path).group(1)
        tag = manifest["subject"]["digest"].replace(":", "-")
        kind = "application/vnd.oci.image.index.v1+json"
        with lock:
            status, _, data = ask("GET", f"/v2/{name}/manifests/{tag}", {"Accept": kind}, None)
            index = json.loads(data) if status == 200 else {"schemaVersion": 2, "mediaType": kind, "manifests": []}
            index["manifests"].append({
                "mediaType": manifest["mediaType"],
                "digest": "sha256:" + hashlib.sha256(body).hexdigest(),
                "size": len(body),
                "artifactType": manifest.get("artifactType") or manifest["config"]["mediaType"],
                "annotations": manifest.get("annotations", {}),
            })
            ask("PUT", f"/v2/{name}/manifests/{tag}", {"Content-Type": kind}, json.dumps(index).encode())

    def passed(self):
        keep = ("accept", "content-type", "range", "content-range")
        out = {n: v for n, v in self.headers.items() if n.lower() in keep}
        out["Host"] = self.headers.get("Host", "")
        return out

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


server = Server(("127.0.0.1", int(sys.argv[1])), Front)
threading.Thread(target=server.serve_forever, daemon=True).start()
say(port=server.server_address[1])
for line in sys.stdin:
    told = json.loads(line)
    mode.clear()
    counts.clear()
    mode.update(told)
    say(told=True)
