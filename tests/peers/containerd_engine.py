"""As much of an engine's API as loads an image and says what it has, over a real containerd: what an engine does whose images are
containerd's. `containerd_engine.py SOCKET CONTAINERD`; an image's id is the digest of what containerd keeps under its name."""

import json
import re
import socketserver
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler

SOCKET, CONTAINERD = sys.argv[1:]


def ctr(*words):
    return subprocess.run(["ctr", "--address", CONTAINERD, "--namespace", "moby", *words], capture_output=True, text=True)


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def pieces(self):
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_GET(self):
        if self.path.endswith("/version"):
            return self.answer(200, {"ApiVersion": "1.44", "MinAPIVersion": "1.24", "Version": "stand-in"})
        asked = re.search(r"/images/([^/]+)/json$", self.path).group(1).replace("%3A", ":")
        for line in ctr("images", "ls").stdout.splitlines()[1:]:
            if line.split()[2] == asked:
                return self.answer(200, {"Id": asked, "Os": "linux", "Architecture": "amd64"})
        self.answer(404, {"message": f"No such image: {asked}"})

    def do_POST(self):
        with tempfile.NamedTemporaryFile() as file:
            for piece in self.pieces():
                file.write(piece)
            file.flush()
            done = ctr("images", "import", "--no-unpack", file.name)
            if done.returncode:
                done = ctr("images", "import", file.name)
        if done.returncode:
            return self.answer(500, {"message": done.stderr})
        self.answer(200, {"stream": done.stdout})

    def log_message(self, *words):
        pass

    def address_string(self):
        return "engine"


with socketserver.ThreadingUnixStreamServer(SOCKET, Engine) as server:
    server.serve_forever()
