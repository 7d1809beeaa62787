//! Credentials on the wire, from a real session: the server is told the value, the session never is, and nobody else hears
//! even what stands for it.

use agentcontainer_tests::place::token;
use serde_json::{Value, json};

use crate::standard::{name, standard, workspace};

/// Of the shape of a key, and found nowhere else.
fn value() -> String {
    let random = token("").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    format!("ghp_{:Z<36}", format!("{random}AbCdEfGhIjKlMnOpQrStUvWx"))
}

/// The field with which a request of that name was heard.
fn authorization(heard: &[Value]) -> Vec<String> {
    heard
        .iter()
        .map(|one| {
            one["headers"]["Authorization"]
                .as_str()
                .or_else(|| one["headers"]["authorization"].as_str())
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

#[test]
fn a_credential_reaches_the_servers_it_may_go_to_and_nobody_else() {
    let (good, other, value) = (name(), name(), value());
    let workspace = workspace()
        .allow(&[&good, &other])
        .credential("github", json!({ "hosts": [good], "env": "GITHUB_TOKEN" }));
    let file = workspace.put_outside("token", format!("{value}\n"));
    let grant = format!(
        "source = \"file://{}\"\nhosts = [\"{good}\"]",
        file.display()
    );
    let workspace = workspace.grant("github", &grant);
    let ask = |url: &str, how: &str| {
        format!(
            "curl -s -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 {how} {url}"
        )
    };
    let bearer = "-H \"Authorization: Bearer $GITHUB_TOKEN\"";
    let script = [
        ask(&format!("https://{good}/hello"), bearer),
        ask(&format!("https://{good}/hello"), "-u \"x-access-token:$GITHUB_TOKEN\""),
        "python3 -c \"import os, requests; print(requests.get('https://GOOD/hello', headers={'Authorization': 'token ' + os.environ['GITHUB_TOKEN']}).status_code)\""
            .replace("GOOD", &good),
        ask(&format!("https://{other}/hello"), bearer),
        ask(&format!("http://{good}/hello"), bearer),
        ask(&format!("'https://{good}/hello?t='$GITHUB_TOKEN"), ""),
        ask(&format!("https://{good}/up"), "-d \"token=$GITHUB_TOKEN\""),
        ask(&format!("https://{other}/hello"), ""),
    ]
    .join("\n");
    let out = workspace.inside(&script);
    let lines: Vec<&str> = out.ok().lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "200",
            "200",
            "200",
            "403 credential-elsewhere",
            "403 credential-elsewhere",
            "403 credential-misplaced",
            "403 credential-misplaced",
            "200",
        ],
        "{}",
        out.stderr
    );
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{value}"));
    let heard = standard().requests(&good);
    assert_eq!(
        authorization(&heard)[..3],
        [
            format!("Bearer {value}"),
            format!("Basic {basic}"),
            format!("token {value}")
        ]
    );
    // The control was heard, and nothing that held a placeholder.
    let elsewhere = standard().requests(&other);
    assert_eq!(authorization(&elsewhere), [""]);
    let placeholder = workspace.inside("printenv GITHUB_TOKEN").ok().to_owned();
    assert_eq!(placeholder.len(), value.len());
    let said = format!("{out:?}");
    assert!(!said.contains(&value), "the session was told the value");
}

#[test]
fn a_credential_goes_with_the_methods_and_paths_it_is_for_and_two_share_a_host() {
    let (good, values) = (name(), [value(), value()]);
    let grant = |n: usize, more: &str| {
        let file = format!("token{n}");
        (file, format!("hosts = [\"{good}\"]\n{more}"))
    };
    let mut workspace = workspace()
        .allow(&[&good])
        .credential("reads", json!({ "hosts": [good], "env": "READS" }))
        .credential("writes", json!({ "hosts": [good], "env": "WRITES" }));
    for (n, (name, more)) in [
        (
            "reads",
            "methods = [\"GET\", \"HEAD\"]\npaths = [\"/hello\", \"/bytes/*\"]",
        ),
        ("writes", "methods = [\"POST\"]\npaths = [\"/up\"]"),
    ]
    .into_iter()
    .enumerate()
    {
        let (file, text) = grant(n, more);
        let file = workspace.put_outside(&file, format!("{}\n", values[n]));
        let text = format!("source = \"file://{}\"\n{text}", file.display());
        workspace = workspace.grant(name, &text);
    }
    let ask = |variable: &str, path: &str, how: &str| {
        format!(
            "curl -s -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 -H \"Authorization: Bearer ${variable}\" {how} 'https://{good}{path}'"
        )
    };
    let out = workspace.inside(
        &[
            ask("READS", "/hello", ""),
            ask("READS", "/hello", "--http1.1 -I"),
            ask("WRITES", "/up", "-d x"),
            ask("READS", "/up", "-d x"),
            ask("READS", "/hello", "-X DELETE"),
            ask("READS", "/numbers", ""),
            ask("WRITES", "/hello", ""),
            ask("WRITES", "/up", ""),
            // What some servers take for another method, or another path.
            ask("READS", "/hello", "-H 'X-HTTP-Method-Override: DELETE'"),
            ask("READS", "/hello?_method=delete", ""),
            ask("READS", "/hello", "-H 'X-Original-URL: /up'"),
            ask("WRITES", "/up", "-d x -H 'X-Rewrite-Url: /hello'"),
        ]
        .join("\n"),
    );
    let lines: Vec<&str> = out.ok().lines().map(str::trim).collect();
    let mut expected = vec!["200"; 3];
    expected.extend(["403 credential-elsewhere"; 9]);
    assert_eq!(lines, expected, "{}", out.stderr);
    let heard = authorization(&standard().requests(&good));
    let sent = |n: usize| format!("Bearer {}", values[n]);
    assert_eq!(heard, [sent(0), sent(0), sent(1)]);
}

#[test]
fn a_credential_stands_in_its_parameter_and_within_basic_and_nowhere_beside_them() {
    use base64::Engine as _;
    let (good, other) = (name(), name());
    // Of characters that a query has other meanings for, too.
    let value = format!("{}+/=&", value());
    let workspace = workspace()
        .allow(&[&good, &other])
        .credential("model", json!({ "hosts": [good], "env": "MODEL_KEY" }));
    let file = workspace.put_outside("token", format!("{value}\n"));
    let grant = format!(
        "source = \"file://{}\"\nhosts = [\"{good}\"]\nquery = \"key\"",
        file.display()
    );
    let ask = |url: &str, how: &str| {
        format!(
            "curl -s -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 {how} {url}"
        )
    };
    let encode = "--data-urlencode \"key=$MODEL_KEY\"";
    let out = workspace.grant("model", &grant).inside(
        &[
            ask(&format!("\"https://{good}/hello?x=1&key=$MODEL_KEY\""), ""),
            ask(&format!("https://{good}/hello"), &format!("-G {encode}")),
            "python3 -c \"import os, requests; print(requests.get('https://GOOD/hello', params={'key': os.environ['MODEL_KEY']}).status_code)\""
                .replace("GOOD", &good),
            format!(
                "git -c http.extraHeader=\"Authorization: Basic $(printf 'x-access-token:%s' \"$MODEL_KEY\" | base64 -w0)\" ls-remote https://{good}/it.git >/dev/null 2>&1; echo git"
            ),
            ask(&format!("\"https://{other}/hello?key=$MODEL_KEY\""), ""),
            ask(&format!("\"http://{good}/hello?key=$MODEL_KEY\""), ""),
            ask(&format!("\"https://{good}/hello?token=$MODEL_KEY\""), ""),
            ask(&format!("\"https://{good}/$MODEL_KEY\""), ""),
            ask(&format!("https://{good}/up"), encode),
        ]
        .join("\n"),
    );
    let lines: Vec<&str> = out.ok().lines().map(str::trim).collect();
    let refused = ["403 credential-elsewhere", "403 credential-misplaced"];
    let [elsewhere, misplaced] = refused;
    assert_eq!(
        lines,
        [
            "200", "200", "200", "git", elsewhere, elsewhere, misplaced, misplaced, misplaced
        ],
        "{}",
        out.stderr
    );
    let heard = standard().requests(&good);
    let paths: Vec<&str> = heard
        .iter()
        .filter_map(|one| one["path"].as_str())
        .collect();
    let encoded = value.replace('+', "%2B").replace('/', "%2F");
    let encoded = encoded.replace('=', "%3D").replace('&', "%26");
    assert_eq!(
        paths[..3],
        [
            format!("/hello?x=1&key={encoded}"),
            format!("/hello?key={encoded}"),
            format!("/hello?key={encoded}")
        ]
    );
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{value}"));
    let git: Vec<Value> = heard
        .iter()
        .filter(|one| {
            one["path"]
                .as_str()
                .is_some_and(|path| path.starts_with("/it.git/"))
        })
        .cloned()
        .collect();
    let wanted = format!("Basic {basic}");
    assert!(!git.is_empty(), "{paths:?}");
    assert!(
        authorization(&git).iter().all(|field| *field == wanted),
        "{git:?}"
    );
    assert!(
        !paths[3..].iter().any(|path| path.contains("key=")),
        "{paths:?}"
    );
    assert!(standard().requests(&other).is_empty());
    let said = format!("{out:?}");
    assert!(!said.contains(&value) && !said.contains(&encoded));
}

#[test]
fn a_value_that_a_server_sends_back_is_taken_out() {
    let (host, value) = (name(), value());
    let workspace = workspace()
        .allow(&[&host])
        .credential("github", json!({ "hosts": [host], "env": "GITHUB_TOKEN" }));
    let file = workspace.put_outside("token", format!("{value}\n"));
    let grant = format!(
        "source = \"file://{}\"\nhosts = [\"{host}\"]",
        file.display()
    );
    let out = workspace.grant("github", &grant).inside(&format!(
        "curl -sS --max-time 30 -H \"Authorization: Bearer $GITHUB_TOKEN\" https://{host}/echo-headers; echo; printenv GITHUB_TOKEN"
    ));
    let placeholder = out.ok().lines().last().unwrap_or_default().to_owned();
    assert!(
        out.stdout.contains(&format!("Bearer {placeholder}")),
        "{}",
        out.stdout
    );
    assert!(!format!("{out:?}").contains(&value));
    let heard = authorization(&standard().requests(&host));
    assert_eq!(heard, [format!("Bearer {value}")], "the server was told it");
}

/// What a server has that credentials do not go to, by clients that read it in every way; the same in a session without any credential
/// is the control.
#[test]
fn a_value_is_taken_out_of_what_any_other_place_answers_too() {
    let (own, other, value) = (name(), name(), value());
    let file = token("said");
    let served = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(&file);
    std::fs::write(&served, format!("your token is {value}.\n")).unwrap();
    let curl = |words: &str| format!("curl -sS --max-time 30 {words}");
    let script = [
        curl(&format!("--http1.1 https://{other}/{file}")),
        curl(&format!("--http2 https://{other}/{file}")),
        curl(&format!("http://{other}/{file}")),
        curl(&format!("--compressed 'https://{other}/{file}?gzip'")),
        format!("python3 -c \"import requests; print(requests.get('https://{other}/{file}?gzip', timeout=30).text)\""),
        format!("java Ws.java wss://{other}/ws/{file} ws://{other}/ws/{file}"),
        "echo \"$GITHUB_TOKEN\"".to_owned(),
    ]
    .join("\n");
    let listens = "import java.net.URI; import java.net.http.*; import java.nio.ByteBuffer; import java.util.concurrent.*;
import static java.nio.charset.StandardCharsets.UTF_8;
class Ws {
  public static void main(String[] arguments) throws Exception {
    for (var url : arguments) {
      var heard = new LinkedBlockingQueue<String>();
      var listener = new WebSocket.Listener() {
        StringBuilder text = new StringBuilder();
        public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
          text.append(part);
          if (last) { heard.add(\"text \" + text); text.setLength(0); }
          socket.request(1);
          return null;
        }
        public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer part, boolean last) {
          heard.add(\"binary \" + UTF_8.decode(part));
          socket.request(1);
          return null;
        }
        public CompletionStage<?> onPing(WebSocket socket, ByteBuffer part) {
          heard.add(\"ping \" + UTF_8.decode(part));
          socket.request(1);
          return null;
        }
        public void onError(WebSocket socket, Throwable error) { heard.add(error.toString()); }
      };
      var socket = HttpClient.newHttpClient().newWebSocketBuilder().buildAsync(URI.create(url), listener).get(60, TimeUnit.SECONDS);
      for (int i = 0; i < 4; i++) System.out.print(heard.poll(60, TimeUnit.SECONDS));
      socket.abort();
    }
    System.exit(0);
  }
}
";
    let heard = |workspace: &agentcontainer_tests::Workspace| {
        workspace.put("Ws.java", listens);
        let out = workspace.inside(&script);
        out.ok();
        let lines = out.stdout.lines().map(str::to_owned);
        let (texts, others): (Vec<String>, Vec<String>) =
            lines.partition(|line| line.contains("your token is"));
        for kind in ["text ", "ping ", "binary "] {
            let count = texts.iter().filter(|line| line.starts_with(kind)).count();
            assert_eq!(count, if kind == "text " { 4 } else { 2 }, "{out:?}");
        }
        assert_eq!(texts.len(), 5 + 8, "{out:?}");
        (texts, others.last().cloned().unwrap_or_default())
    };
    let said = |texts: &[String], what: &str| {
        let what = format!("your token is {what}.");
        texts.iter().all(|line| line.ends_with(&what))
    };
    // Without a credential nobody knows it.
    let (control, _) = heard(&workspace().allow(&[&other]));
    assert!(said(&control, &value), "{control:?}");
    let workspace = workspace()
        .allow(&[&own, &other])
        .credential("github", json!({ "hosts": [own], "env": "GITHUB_TOKEN" }));
    let source = workspace.put_outside("token", format!("{value}\n"));
    let grant = format!(
        "source = \"file://{}\"\nhosts = [\"{own}\"]",
        source.display()
    );
    let workspace = workspace.grant("github", &grant);
    let (texts, stand_in) = heard(&workspace);
    assert_eq!(stand_in.len(), value.len());
    assert!(said(&texts, &stand_in), "{texts:?}");
    std::fs::remove_file(served).unwrap();
}

#[test]
fn what_a_person_granted_arrives_and_where_nobody_did_nothing_is_sent() {
    let (host, value) = (name(), value());
    let asking = || {
        workspace()
            .allow(&[&host])
            .credential("github", json!({ "hosts": [host], "env": "GITHUB_TOKEN" }))
    };
    let (granted, other) = (asking(), asking());
    let file = granted.put_outside("token", format!("{value}\n"));
    let source = format!("file://{}", file.display());
    granted.write();
    granted
        .cli(&["grant", "github", "--source", &source, "--hosts", &host])
        .status(0);
    let ask = format!(
        "curl -s -o /dev/null -w '%{{http_code}}' --max-time 30 -H \"Authorization: Bearer $GITHUB_TOKEN\" https://{host}/hello"
    );
    assert_eq!(granted.inside(&ask).ok(), "200");
    other
        .inside(&ask)
        .status(125)
        .says("agentcontainer grant github");
    let heard = authorization(&standard().requests(&host));
    assert_eq!(heard, [format!("Bearer {value}")]);
}
