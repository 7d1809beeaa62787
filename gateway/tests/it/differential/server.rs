//! Two servers that know nothing of the gateway, node and nginx, and what each of them says it heard: a JSON object a line, its
//! characters the bytes that were on the wire.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::https::{NAME, World};

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Plain,
    /// TLS, and HTTP/1.1 inside.
    One,
    /// TLS, and HTTP/2 inside for who asks for it.
    Two,
}

/// A server of the world, with what it heard.
pub struct Server {
    child: Child,
    pub port: u16,
    directory: tempfile::TempDir,
    /// The file that it writes what it hears to.
    heard: &'static str,
}

/// A request as a server understood it.
#[derive(Debug, Deserialize)]
pub struct Heard {
    pub method: String,
    pub target: String,
    pub version: String,
    /// Names in lower case, those of HTTP/2 with a colon too.
    pub fields: Vec<(String, String)>,
    /// Of a body that came to its end: its bytes, and their SHA-1. Not told by every server.
    pub body: Option<(u64, String)>,
    /// What it answered.
    pub status: u16,
}

const NODE: &str = r#"
const fs = require('fs');
const crypto = require('crypto');
const say = (what) => fs.writeSync(1, JSON.stringify(what) + '\n', null, 'latin1');
const server = SERVER((request, response) => {
  const hash = crypto.createHash('sha1');
  let body = 0;
  request.on('data', (part) => { body += part.length; hash.update(part); });
  const fields = [];
  for (let n = 0; n < request.rawHeaders.length; n += 2)
    fields.push([request.rawHeaders[n].toLowerCase(), request.rawHeaders[n + 1]]);
  const heard = { method: request.method, target: request.url, version: request.httpVersion, fields, status: 200 };
  request.on('aborted', () => say({ ...heard, body: null }));
  request.on('error', () => {});
  request.on('end', () => {
    if (request.aborted) return;
    say({ ...heard, body: [body, hash.digest('hex')] });
    response.end('ok');
  });
});
server.on('clientError', (error, socket) => {
  // Broken off: a body that turned out malformed is not sent to its end.
  if (error.code !== 'ECONNRESET' && error.code !== 'HPE_INVALID_EOF_STATE') say({ malformed: error.code });
  socket.destroy();
});
server.on('sessionError', (error) => {
  if (error.code !== 'ECONNRESET') say({ malformed: error.message });
});
server.listen(PORT, '127.0.0.1');
"#;

/// The fields that nginx tells of.
pub const LOGGED: [&str; 4] = ["x-one", "cookie", "content-length", "transfer-encoding"];

const NGINX: &str = r#"
daemon off; worker_processes 1; pid AT/pid; error_log stderr; events { }
http {
  log_format heard escape=json '{"method":"$request_method","target":"$request_uri","version":"$server_protocol","fields":[["host","$http_host"],["x-one","$http_x_one"],["cookie","$http_cookie"],["content-length","$http_content_length"],["transfer-encoding","$http_transfer_encoding"]],"body":null,"status":$status}';
  access_log AT/heard heard;
  client_body_temp_path AT/b; proxy_temp_path AT/p; fastcgi_temp_path AT/f; uwsgi_temp_path AT/u; scgi_temp_path AT/s;
  server { listen 127.0.0.1:PORT SPEAKS; merge_slashes off; underscores_in_headers on; location / { return 200 'ok'; } }
}
"#;

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

impl Server {
    async fn start(
        world: &World,
        program: &str,
        heard: &'static str,
        arguments: impl FnOnce(&Path, u16) -> Vec<String>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let (certificate, key) = world.leaf(NAME, |_| {});
        std::fs::write(at("certificate.pem"), pem("CERTIFICATE", &certificate)).unwrap();
        std::fs::write(at("key.pem"), pem("PRIVATE KEY", &key)).unwrap();
        let port = free_port();
        let child = Command::new(program)
            .args(arguments(directory.path(), port))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(at("out")).unwrap())
            .stderr(std::fs::File::create(at("errors")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let server = Self {
            child,
            port,
            directory,
            heard,
        };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let errors = std::fs::read_to_string(server.directory.path().join("errors"));
        panic!("{program} does not listen: {errors:?}");
    }

    pub async fn node(world: &World, speaks: Speaks) -> Self {
        Self::start(world, "node", "out", |directory, port| {
            let at = directory.display();
            let tls = format!(
                "{{ cert: fs.readFileSync('{at}/certificate.pem'), key: fs.readFileSync('{at}/key.pem'), allowHTTP1: true }}"
            );
            let server = match speaks {
                Speaks::Plain => "require('http').createServer(".to_owned(),
                Speaks::One => format!("require('https').createServer({tls}, "),
                Speaks::Two => format!("require('http2').createSecureServer({tls}, "),
            };
            let script = NODE
                .replace("SERVER(", &server)
                .replace("PORT", &port.to_string());
            vec!["-e".to_owned(), script]
        })
        .await
    }

    pub async fn nginx(world: &World, speaks: Speaks) -> Self {
        Self::start(world, "nginx", "heard", |directory, port| {
            let tls = "; ssl_certificate AT/certificate.pem; ssl_certificate_key AT/key.pem";
            let speaks = match speaks {
                Speaks::Plain => String::new(),
                Speaks::One => format!("ssl{tls}"),
                Speaks::Two => format!("ssl http2{tls}"),
            };
            let config = NGINX
                .replace("SPEAKS", &speaks)
                .replace("PORT", &port.to_string())
                .replace("AT", &directory.display().to_string());
            let path = directory.join("nginx.conf");
            std::fs::write(&path, config).unwrap();
            vec!["-c".to_owned(), path.display().to_string()]
        })
        .await
    }

    /// Whether it tells of every field, and of bodies.
    pub fn tells_all(&self) -> bool {
        self.heard == "out"
    }

    pub fn heard(&self) -> Vec<Heard> {
        let bytes = std::fs::read(self.directory.path().join(self.heard)).unwrap_or_default();
        // Each byte a character.
        let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
        let understood = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| {
                panic!("the gateway sent what is no request: {line} ({error})")
            })
        };
        text.lines().map(understood).collect()
    }
}
