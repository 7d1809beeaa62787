//! Clients that know nothing of us, none with a proxy variable set.

use std::process::Command;

use agentcontainer_tests::docker::{self, Plain};
use agentcontainer_tests::{place::token, rig};

use crate::standard::{name, standard, workspace};

/// Runs a client, without a word about certificates, against an allowed and an unlisted name over HTTPS: the first has to be
/// greeted, the second must not be heard of.
fn greets(client: impl Fn(&str) -> String) {
    let (good, bad) = (name(), name());
    let workspace = workspace().allow(&[&good]).host(&bad, rig().bridge);
    let out = workspace.inside(&client(&good));
    assert!(
        out.stdout.contains(&format!("hello from {good}")),
        "status {}\n{}\n{}",
        out.status,
        out.stdout,
        out.stderr
    );
    let out = workspace.inside(&client(&bad));
    assert!(!out.stdout.contains("hello from"), "{}", out.stdout);
    assert_eq!(standard().requests(&good).len(), 1);
    assert!(standard().requests(&bad).is_empty());
}

#[test]
fn curl() {
    greets(|host| format!("curl -sS --max-time 30 https://{host}/hello"));
}

#[test]
fn curl_without_any_variable() {
    greets(|host| format!("env -i PATH=\"$PATH\" curl -sS --max-time 30 https://{host}/hello"));
}

#[test]
fn curl_by_either_version_of_http() {
    for version in ["--http1.1", "--http2"] {
        greets(|host| format!("curl -sS --max-time 30 {version} https://{host}/hello"));
    }
}

#[test]
fn wget() {
    greets(|host| format!("wget -q -T 30 -t 1 -O - https://{host}/hello"));
}

#[test]
fn python_requests() {
    greets(|host| {
        format!(
            "python3 -c \"import requests; print(requests.get('https://{host}/hello', timeout=30).text)\""
        )
    });
}

#[test]
fn python_httpx() {
    greets(|host| {
        format!(
            "python3 -c \"import httpx; print(httpx.get('https://{host}/hello', timeout=30).text)\""
        )
    });
}

#[test]
fn python_aiohttp() {
    greets(|host| {
        format!(
            "python3 -c \"
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession() as session:
        async with session.get('https://{host}/hello') as answer: print(await answer.text())
asyncio.run(main())\""
        )
    });
}

#[test]
fn a_client_that_pins_its_servers_certificate_is_given_tls() {
    let host = name();
    // Debian's curl looks into the system's directory beside the file that it is told, where it is not told another.
    let ask =
        format!("curl -sS --max-time 30 --cacert ca.pem --capath /nowhere https://{host}/hello");
    let out = workspace().allow(&[&host]).inside(&ask);
    assert_eq!(out.status, 60, "{}", out.stderr);
    let out = workspace().rule(&host, 443, "tls").inside(&ask);
    assert_eq!(out.ok(), format!("hello from {host}"));
}

#[test]
fn openssl_s_client() {
    greets(|host| {
        format!(
            "printf 'GET /hello HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' |
             timeout 30 openssl s_client -quiet -verify_return_error -servername {host} -connect {host}:443"
        )
    });
}

#[test]
fn python() {
    greets(|host| {
        format!(
            "python3 -c \"import urllib.request as u; print(u.urlopen('https://{host}/hello', timeout=30).read().decode())\""
        )
    });
}

#[test]
fn node() {
    greets(|host| {
        format!("node -e \"fetch('https://{host}/hello').then(r => r.text()).then(console.log)\"")
    });
}

#[test]
fn java() {
    get_with("java");
}

#[test]
fn java_without_its_variable() {
    get_with("env -u JAVA_TOOL_OPTIONS java");
}

/// A program that asks for a page.
fn get_with(java: &str) {
    greets(|host| {
        format!(
            "cat >/tmp/Get.java <<'END'
import java.net.*; import java.net.http.*;
class Get {{ public static void main(String[] a) throws Exception {{ System.out.println(HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build()
  .send(HttpRequest.newBuilder(URI.create(a[0])).build(), HttpResponse.BodyHandlers.ofString()).body()); }} }}
END
             {java} /tmp/Get.java https://{host}/hello"
        )
    });
}

#[test]
fn a_websocket_of_java() {
    let (good, bad) = (name(), name());
    let workspace = workspace().allow(&[&good]).host(&bad, rig().bridge);
    workspace.put(
        "Ws.java",
        "import java.net.URI; import java.net.http.*; import java.util.concurrent.*;
class Ws {
  public static void main(String[] arguments) throws Exception {
    for (var host : arguments) {
      var answer = new CompletableFuture<Integer>();
      var listener = new WebSocket.Listener() {
        int heard = 0;
        public CompletionStage<?> onText(WebSocket socket, CharSequence text, boolean last) {
          heard += text.length();
          if (last) answer.complete(heard);
          socket.request(1);
          return null;
        }
        public void onError(WebSocket socket, Throwable error) { answer.completeExceptionally(error); }
      };
      try {
        var socket = HttpClient.newHttpClient().newWebSocketBuilder().buildAsync(URI.create(\"ws://\" + host + \"/ws\"), listener).get(60, TimeUnit.SECONDS);
        socket.sendText(\"x\".repeat(100000), true).get(60, TimeUnit.SECONDS);
        System.out.println(\"heard \" + answer.get(60, TimeUnit.SECONDS));
        socket.sendClose(1000, \"\").get(60, TimeUnit.SECONDS);
      } catch (ExecutionException error) {
        var cause = error.getCause();
        System.out.println(cause instanceof WebSocketHandshakeException refused ? \"refused \" + refused.getResponse().statusCode() : cause);
      }
    }
    System.exit(0);
  }
}
",
    );
    let out = workspace.inside(&format!("java Ws.java {good} {bad}"));
    assert_eq!(out.ok(), "heard 100000\nrefused 403", "{}", out.stderr);
    assert_eq!(standard().requests(&good).len(), 1);
    assert!(standard().requests(&bad).is_empty());
}

#[test]
fn a_websocket_of_node_on_a_stream_of_http_2() {
    let (good, bad) = (name(), name());
    let workspace = workspace().allow(&[&good]).host(&bad, rig().bridge);
    workspace.put(
        "ws.js",
        "const http2 = require('http2');
async function ask(host) {
  const session = http2.connect('https://' + host);
  session.on('error', (error) => { console.log(String(error)); process.exit(1); });
  const settings = await new Promise((done) => session.once('remoteSettings', done));
  const stream = session.request({ ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/ws', 'sec-websocket-version': '13' });
  const text = Buffer.alloc(50000, 'x');
  const answer = await new Promise((done) => stream.once('response', done));
  if (answer[':status'] !== 200) { session.destroy(); return 'refused ' + answer[':status'] + ' ' + answer['x-agentcontainer-blocked']; }
  const head = Buffer.from([0x81, 0xfe, 0, 0, 0, 0, 0, 0]);
  head.writeUInt16BE(text.length, 2);
  stream.write(Buffer.concat([head, text]));
  let heard = Buffer.alloc(0);
  for await (const part of stream) {
    heard = Buffer.concat([heard, part]);
    if (heard.length >= 4 + text.length) break;
  }
  session.destroy();
  return 'heard ' + heard.readUInt16BE(2) + ' ' + heard.subarray(4).equals(text) + ' ' + settings.enableConnectProtocol;
}
(async () => { for (const host of process.argv.slice(2)) console.log(await ask(host)); })();
",
    );
    let out = workspace.inside(&format!("node ws.js {good} {bad}"));
    assert_eq!(
        out.ok(),
        "heard 50000 true true\nrefused 403 not-listed",
        "{}",
        out.stderr
    );
    assert_eq!(standard().requests(&good).len(), 1);
    assert!(standard().requests(&bad).is_empty());
}

#[test]
fn busybox() {
    greets(|host| format!("busybox wget -q -O - http://{host}/hello"));
}

#[test]
fn a_program_that_asks_only_for_ipv4_addresses_it_could_use() {
    // AI_ADDRCONFIG with AF_INET: glibc answers only where an address other than 127.0.0.1 is configured.
    let host = name();
    let out = workspace()
        .allow(&[&host])
        .inside(&format!("getent ahostsv4 {host} | head -1"));
    assert!(out.ok().starts_with("198.1"), "{}", out.stdout);
}

#[test]
fn git_over_https() {
    let (good, bad) = (name(), name());
    let served = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(token("repo"));
    let repository = served.display();
    let script = format!(
        "git init -q -b main {repository}/work && cd {repository}/work && echo content >file && git add file &&
         git -c user.name=t -c user.email=t@t commit -qm first && git clone -q --bare . ../it.git && cd ../it.git && git update-server-info"
    );
    assert!(
        Command::new("sh")
            .args(["-ec", &script])
            .status()
            .unwrap()
            .success()
    );
    let path = format!("{}/it.git", served.file_name().unwrap().display());
    let out = workspace()
        .allow(&[&good])
        .host(&bad, rig().bridge)
        .inside(&format!(
            "export GIT_TERMINAL_PROMPT=0
         git clone -q https://{good}/{path} /tmp/good && cat /tmp/good/file
         git clone -q https://{bad}/{path} /tmp/bad 2>/dev/null || echo refused"
        ));
    assert_eq!(out.ok(), "content\nrefused");
    assert!(!standard().requests(&good).is_empty() && standard().requests(&bad).is_empty());
}

#[test]
fn git_over_ssh() {
    let (good, bad) = (name(), name());
    let setup = "mkdir -p /run/sshd /srv /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/key && cp /root/key.pub /root/.ssh/authorized_keys &&
        git init -q -b main /srv/work && cd /srv/work && echo content >file && git add file &&
        git -c user.name=t -c user.email=t@t commit -qm first && git clone -q --bare . /srv/it.git && ssh-keygen -A >/dev/null &&
        exec /usr/sbin/sshd -D -e -p 2222 -o StrictModes=no";
    let server = Plain::start(&[], &["sh", "-c", setup]);
    let workspace = workspace()
        .allow(&[&format!("{good}:2222")])
        .host(&good, server.address())
        .host(&bad, server.address());
    let began = std::time::Instant::now();
    let ready = || {
        docker::attempt(&[
            "exec",
            &server.id,
            "sh",
            "-c",
            "cat /proc/net/tcp* | grep -q ':08AE .* 0A '",
        ])
        .status
            == 0
    };
    while !ready() {
        assert!(
            began.elapsed().as_secs() < 30,
            "sshd does not start: {:?}",
            docker::attempt(&["logs", &server.id])
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    workspace.put(
        "key",
        docker::run(&["exec", &server.id, "cat", "/root/key"]) + "\n",
    );
    let out = workspace.inside(&format!(
        "install -m 600 key /tmp/key
         export GIT_SSH_COMMAND='ssh -i /tmp/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=20'
         git clone -q ssh://root@{good}:2222/srv/it.git /tmp/good && cat /tmp/good/file
         git clone -q ssh://root@{bad}:2222/srv/it.git /tmp/bad 2>&1 | grep -o 'Operation not permitted'"
    ));
    assert_eq!(
        out.stdout.trim(),
        "content\nOperation not permitted",
        "{}",
        out.stderr
    );
}

#[test]
fn keep_alive_carries_many_requests_on_one_connection() {
    let host = name();
    let out = workspace()
        .allow(&[&host])
        .inside(&format!("curl -sS --max-time 30 -w '%{{num_connects}} ' http://{host}/hello http://{host}/hello http://{host}/hello"));
    let connects: Vec<&str> = out
        .ok()
        .lines()
        .filter_map(|line| line.split(' ').next()?.parse::<u32>().ok().map(|_| line))
        .collect();
    assert!(
        out.stdout.trim().ends_with('0'),
        "the last request made a connection: {connects:?} {}",
        out.stdout
    );
    assert_eq!(standard().requests(&host).len(), 3);
}

#[test]
fn chunked_bodies_pass_both_ways() {
    let host = name();
    let out = workspace().allow(&[&host]).inside(&format!(
        "curl -sS --max-time 30 http://{host}/chunked | tail -1
         head -c 100000 /dev/zero | curl -sS --max-time 30 -T - -H 'Expect:' http://{host}/up
         curl -sS --max-time 30 https://{host}/chunked | tail -1"
    ));
    let lines: Vec<&str> = out.ok().lines().collect();
    assert_eq!((lines[0], lines[2]), ("part 9", "part 9"));
    assert!(lines[1].ends_with(" 100000"), "{}", out.stdout);
}
