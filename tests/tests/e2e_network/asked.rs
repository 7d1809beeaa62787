//! What a rule has a person asked about, from a real session: held until the answer, and by the answer's scope. What the server
//! heard is the verdict.

use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::workspace::Session;
use agentcontainer_tests::{Workspace, rig};
use serde_json::{Value, json};

use crate::standard::{name, standard, workspace};

/// Long enough for what is not held to have arrived.
const A_WHILE: Duration = Duration::from_millis(500);

/// The questions of a session that wait.
fn waiting(session: &Session<'_>) -> Vec<Value> {
    let said = session
        .workspace
        .cli(&["approvals", "--json", &session.name]);
    let lines = said.ok().lines();
    lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["open"].clone())
        .collect()
}

/// Waits until so many wait, and gives them, the oldest first.
fn asked(session: &Session<'_>, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let waiting = waiting(session);
        if waiting.len() == count {
            return waiting;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{count} should wait: {waiting:#?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn id(question: &Value) -> &str {
    question["id"].as_str().unwrap()
}

/// Starts a command inside that is waited for later.
fn begin(session: &Session<'_>, script: &str) -> Child {
    let words = ["exec", &session.name, "--", "sh", "-c", script];
    session.workspace.spawn(&words)
}

fn end(child: Child) -> String {
    let ended = outcome::wait(child, "a request", DEADLINE);
    ended.ok().to_owned()
}

/// A request, and what it is answered: `200 `, or `403 CODE`.
fn curl(url: &str, how: &str) -> String {
    format!(
        "curl -s -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}' --max-time 60 {how} {url}"
    )
}

#[test]
fn a_request_waits_for_a_person_and_what_is_denied_never_arrives() {
    let host = name();
    let workspace = workspace().host(&host, rig().bridge).rules(&json!([
        { "host": host, "ports": [443, 80], "paths": ["/hello"] },
        { "host": host, "ports": [443, 80], "paths": ["/bytes/*"], "action": "ask" },
        { "host": host, "ports": [443, 80], "paths": ["/bytes/7"], "action": "deny" },
    ]));
    workspace.write();
    for (target, verdict) in [(&host, "is allowed"), (&"other.test".to_owned(), "denied")] {
        let said = workspace.cli(&["policy", "explain", target]);
        said.prints(verdict);
    }
    let name = token("a");
    let session = workspace.session(&name);
    let heard = || standard().requests(&host).len();
    assert_eq!(
        session
            .inside(&curl(&format!("https://{host}/hello"), ""))
            .ok(),
        "200"
    );
    assert_eq!(heard(), 1, "what is allowed waits for nobody");
    for scheme in ["https", "http"] {
        let url = format!("{scheme}://{host}/bytes/5?why=because");
        // Nobody is asked about what is denied.
        let denied = session.inside(&curl(&format!("{scheme}://{host}/bytes/7"), ""));
        assert_eq!(denied.ok(), "403 request-denied");
        let before = heard();
        let child = begin(&session, &curl(&url, "-d x"));
        let question = asked(&session, 1).remove(0);
        std::thread::sleep(A_WHILE);
        assert_eq!(heard(), before, "it waits");
        assert_eq!(question["host"], json!(host));
        assert_eq!(question["method"], "POST");
        assert_eq!(question["target"], "/bytes/5?why=because");
        assert_eq!(question["protocol"], scheme);
        let program = question["process"]["program"].as_str().unwrap();
        assert!(program.ends_with("curl"), "{question}");
        assert!(
            question["rule"]["name"].as_str().unwrap().contains(" ask "),
            "{question}"
        );
        let shown = workspace.cli(&["approvals", &name]);
        shown
            .prints(id(&question))
            .prints("POST /bytes/5?why=because");
        workspace
            .cli(&["approve", id(&question)])
            .status(0)
            .prints("allowed once");
        assert_eq!(end(child), "200");
        assert_eq!(heard(), before + 1);
        // Once is that once.
        workspace
            .cli(&["approve", id(&question)])
            .status(125)
            .says("is over: approval-allowed");
        let child = begin(&session, &curl(&url, "-d x"));
        let again = asked(&session, 1).remove(0);
        workspace.cli(&["deny", id(&again)]).status(0);
        assert_eq!(end(child), "403 approval-denied");
        assert_eq!(heard(), before + 1, "what is denied never arrives");
    }
    workspace
        .cli(&["approve", "nosuch"])
        .status(125)
        .says("there is no question");
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let events = workspace.events(&name);
    let of = |reason: &str| {
        let mut events = events.iter();
        let found = events.find(|event| event["kind"] == "approval" && event["reason"] == reason);
        found.unwrap_or_else(|| panic!("no {reason}")).clone()
    };
    assert_eq!(of("approval-asked")["verdict"], "ask");
    assert!(of("approval-asked")["process"]["program"].is_string());
    assert_eq!(of("approval-allowed")["by"], json!(uid));
    assert_eq!(of("approval-denied")["by"], json!(uid));
    assert!(
        !json!(events).to_string().contains("because"),
        "queries are not on record"
    );
    let logs = workspace.cli(&["logs", "--network", &name]);
    logs.prints("held ").prints("approval-denied");
}

#[test]
fn an_answer_for_the_session_is_about_the_same_and_about_nothing_else() {
    let host = name();
    let workspace = workspace().host(&host, rig().bridge).rules(&json!([
        { "host": host, "ports": [443], "action": "ask" },
    ]));
    let name = token("s");
    let session = workspace.session(&name);
    let heard = || standard().requests(&host).len();
    let url = |path: &str| format!("https://{host}{path}");
    let child = begin(&session, &curl(&url("/bytes/1?a=1"), ""));
    let question = asked(&session, 1).remove(0);
    workspace
        .cli(&["approve", "--session", id(&question)])
        .status(0)
        .prints("until the session ends");
    assert_eq!(end(child), "200");
    for query in ["", "?a=2"] {
        let again = session.inside(&curl(&url(&format!("/bytes/1{query}")), ""));
        assert_eq!(again.ok(), "200");
    }
    assert_eq!(heard(), 3);
    for (path, how) in [("/bytes/2", ""), ("/bytes/1", "-d x"), ("/bytes/1/", "")] {
        let child = begin(&session, &curl(&url(path), how));
        let question = asked(&session, 1).remove(0);
        workspace.cli(&["deny", id(&question)]).status(0);
        assert_eq!(end(child), "403 approval-denied", "{path} {how}");
    }
    assert_eq!(heard(), 3);
    // Another session of the same workspace was told nothing.
    let other = token("t");
    let beside = workspace.session(&other);
    let child = begin(&beside, &curl(&url("/bytes/1"), ""));
    let question = asked(&beside, 1).remove(0);
    workspace.cli(&["deny", id(&question)]).status(0);
    assert_eq!(end(child), "403 approval-denied");
    assert_eq!(heard(), 3);
}

#[test]
fn what_nobody_answers_is_denied_and_so_is_what_is_beyond_the_bound() {
    let host = name();
    let workspace = workspace()
        .gateway_line("approval_seconds = 4")
        .host(&host, rig().bridge)
        .rules(&json!([{ "host": host, "ports": [443], "action": "ask" }]));
    let name = token("w");
    let session = workspace.session(&name);
    let page = format!("curl -s --max-time 60 https://{host}/hello");
    let began = Instant::now();
    let said = session.inside(&page);
    assert!(began.elapsed() >= Duration::from_secs(4));
    assert!(said.ok().contains("approval-timeout"), "{said:?}");
    assert!(said.stdout.contains("agentcontainer approvals"), "{said:?}");
    // As many at once as may wait, and one more.
    let many = format!(
        "for n in $(seq 33); do {} & done; wait",
        curl(&format!("https://{host}/bytes/$n"), "").replace("%header", "\\n%header")
    );
    let child = begin(&session, &many);
    asked(&session, 32);
    let said = end(child);
    let count = |code: &str| said.matches(code).count();
    assert_eq!(
        (count("approval-limit"), count("approval-timeout")),
        (1, 32),
        "{said}"
    );
    assert!(standard().requests(&host).is_empty());
}

#[test]
fn several_wait_and_are_answered_in_any_order() {
    let host = name();
    let workspace = workspace().host(&host, rig().bridge).rules(&json!([
        { "host": host, "ports": [443], "action": "ask" },
    ]));
    let name = token("o");
    let session = workspace.session(&name);
    let mut children = Vec::new();
    for n in 1..=3 {
        let url = format!("https://{host}/bytes/{n}");
        children.push(begin(&session, &curl(&url, "")));
        asked(&session, n);
    }
    let questions = asked(&session, 3);
    workspace.cli(&["approve", id(&questions[2])]).status(0);
    workspace.cli(&["deny", id(&questions[0])]).status(0);
    workspace.cli(&["approve", id(&questions[1])]).status(0);
    let ends: Vec<String> = children.into_iter().map(end).collect();
    assert_eq!(ends, ["403 approval-denied", "200", "200"]);
    let mut paths: Vec<String> = standard()
        .requests(&host)
        .iter()
        .map(|one| one["path"].as_str().unwrap().to_owned())
        .collect();
    paths.sort();
    assert_eq!(paths, ["/bytes/2", "/bytes/3"]);
}

#[test]
fn what_nothing_lists_is_asked_about_and_an_unread_connection_too() {
    let (receiver, host, listed) = (Receiver::start(), name(), name());
    let port = receiver.port();
    let workspace = workspace()
        .key(
            "agent",
            json!({ "capabilities": { "network": { "egress": {
            "unlisted": "ask",
            "allowedDomains": [listed],
            "deniedDomains": [format!("no.{host}")],
            "rules": [{ "host": host, "ports": [port], "protocol": "tcp", "action": "ask" }],
        } } } }),
        )
        .host(&host, rig().bridge)
        .host(&listed, rig().bridge);
    workspace.write();
    workspace
        .cli(&["policy", "explain", &format!("new.{host}")])
        .status(0)
        .prints("is asked about as https")
        .prints("unlisted \"ask\" at agentcontainer.json:");
    let name = token("u");
    let session = workspace.session(&name);
    assert_eq!(
        session
            .inside(&curl(&format!("https://{listed}/hello"), ""))
            .ok(),
        "200"
    );
    let denied = session.inside(&curl(&format!("https://no.{host}/hello"), ""));
    assert_eq!(denied.ok(), "403 denied-by-rule");
    let child = begin(&session, &curl(&format!("https://{host}/hello"), ""));
    let question = asked(&session, 1).remove(0);
    assert!(standard().requests(&host).is_empty());
    workspace.cli(&["approve", id(&question)]).status(0);
    assert_eq!(end(child), "200");
    assert_eq!(standard().requests(&host).len(), 1);
    // Carried unread: the connection waits, and is not even dialled.
    for (answer, word) in [("deny", "unheard"), ("approve", "heard")] {
        let dial = format!("python3 dial.py tcp {host} {port} {word} || true");
        let child = begin(&session, &dial);
        let question = asked(&session, 1).remove(0);
        assert_eq!(question["kind"], "connect");
        std::thread::sleep(A_WHILE);
        assert!(receiver.heard().is_empty());
        workspace.cli(&[answer, id(&question)]).status(0);
        end(child);
    }
    assert!(receiver.hears(b"heard"));
    assert_eq!(receiver.heard().len(), 1);
}

#[test]
fn nothing_inside_answers_and_parts_that_are_killed_deny() {
    let host = name();
    let workspace = workspace().host(&host, rig().bridge).rules(&json!([
        { "host": host, "ports": [443], "action": "ask" },
    ]));
    let name = token("k");
    let session = workspace.session(&name);
    let url = format!("https://{host}/hello");
    let child = begin(&session, &curl(&url, ""));
    let question = asked(&session, 1).remove(0);
    // The control socket is nowhere inside, by path or in the kernel's own list; the agent sees the question, and that is all.
    let inside = session.inside(&format!(
        "find / -xdev -name '*enforcer*' 2>/dev/null; grep -a enforcer /proc/net/unix; ls /run/agentcontainer; curl -s http://agentcontainer.internal/; for m in POST PUT DELETE; do curl -s -o /dev/null -w '%{{http_code}}\\n' -X $m http://agentcontainer.internal/{}; done",
        id(&question)
    ));
    assert!(inside.stdout.contains(id(&question)), "{inside:?}");
    assert!(!inside.stdout.contains("enforcer.sock"), "{inside:?}");
    assert_eq!(id(&asked(&session, 1)[0]), id(&question), "it still waits");
    // The gateway that holds it goes.
    let pid = gateway_of(&workspace, &name);
    outcome::signal(pid, "-KILL", false);
    let ended = outcome::wait(child, "a request", DEADLINE);
    assert!(!ended.stdout.contains("200"), "{ended:?}");
    workspace
        .cli(&["approve", id(&question)])
        .status(125)
        .says("is over: approval-withdrawn");
    assert!(standard().requests(&host).is_empty());
    // Control: the next one asks, and is carried.
    let child = begin(&session, &curl(&url, "--retry 5 --retry-all-errors"));
    let question = asked(&session, 1).remove(0);
    workspace.cli(&["approve", id(&question)]).status(0);
    assert!(end(child).ends_with("200"));
    assert_eq!(standard().requests(&host).len(), 1);
}

/// The gateway that serves a session, by the session's user id among gateways.
fn gateway_of(workspace: &Workspace, name: &str) -> u32 {
    let status = workspace.cli(&["enforcer", "status", "--json"]);
    let status: Value = serde_json::from_str(status.ok()).unwrap();
    let listed: Value = serde_json::from_str(workspace.cli(&["ps", "--json"]).ok()).unwrap();
    let mut listed = listed.as_array().unwrap().iter();
    let session = listed.find(|one| one["name"] == name).unwrap()["id"].clone();
    let mut sessions = status["sessions"].as_array().unwrap().iter();
    let found = sessions.find(|one| one["session"] == session).unwrap();
    u32::try_from(found["gatewayPid"].as_u64().unwrap()).unwrap()
}

#[test]
fn a_foreground_run_asks_at_the_persons_terminal_and_the_program_cannot_write_over_it() {
    let host = name();
    let workspace = workspace().host(&host, rig().bridge).rules(&json!([
        { "host": host, "ports": [443], "action": "ask" },
    ]));
    workspace.write();
    let request = |n: u32| curl(&format!("https://{host}/bytes/{n}"), "");
    // While the second request is being asked about, the program goes on writing.
    let script = format!(
        "{}; {} & for i in $(seq 30); do printf 'NOISE\\r\\n'; sleep 0.1; done; wait; {}",
        request(1),
        request(2),
        request(3)
    );
    workspace.put("ask.sh", script);
    let binary = workspace.command(["run"]).get_program().to_owned();
    let mut command = std::process::Command::new("script");
    workspace.environment(&mut command);
    let line = format!(
        "{} run --lock --yes -- sh ask.sh </dev/null",
        binary.display()
    );
    command
        .args(["-qefc", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut typed = child.stdin.take().unwrap();
    let screen = Screen::of(child.stdout.take().unwrap());
    for (n, answer) in [(1, "o"), (2, "y\nd"), (3, "session")] {
        let shown = screen.until(n, "once, session or deny? [o/s/d] ");
        assert!(
            shown.contains(&format!("{host}:443 https GET /bytes/{n}")),
            "{shown}"
        );
        assert!(shown.contains("curl (pid "), "{shown}");
        assert!(shown.contains("agentcontainer.json:"), "{shown}");
        std::thread::sleep(A_WHILE);
        let open = screen.after_last("[o/s/d] ");
        assert_eq!(open, "", "nothing is written while it is open");
        for line in answer.split('\n') {
            writeln!(typed, "{line}").unwrap();
            std::thread::sleep(A_WHILE);
        }
    }
    let ended = outcome::wait(child, "run", DEADLINE);
    ended.status(0);
    let heard: Vec<String> = standard()
        .requests(&host)
        .iter()
        .map(|one| one["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(heard, ["/bytes/1", "/bytes/3"]);
}

/// What a terminal was sent, as it comes.
struct Screen(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Screen {
    fn of(mut from: impl std::io::Read + Send + 'static) -> Self {
        let text = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let into = std::sync::Arc::clone(&text);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self(text)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Waits for the nth question that ends like this, and gives everything from where it begins.
    fn until(&self, n: u32, words: &str) -> String {
        let began = Instant::now();
        loop {
            let text = self.text();
            let questions: Vec<&str> = text.split("agentcontainer asks").collect();
            if let Some(shown) = questions.get(n as usize)
                && shown.contains(words)
            {
                return (*shown).to_owned();
            }
            assert!(began.elapsed() < DEADLINE, "no question {n} in {text:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until these words are there.
    fn shows(&self, words: &str) {
        let began = Instant::now();
        while !self.text().contains(words) {
            assert!(
                began.elapsed() < DEADLINE,
                "no {words:?} in {:?}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn after_last(&self, words: &str) -> String {
        let text = self.text();
        let (_, after) = text.rsplit_once(words).unwrap();
        after.to_owned()
    }
}

#[test]
fn who_follows_sees_what_comes_and_what_becomes_of_it_until_they_have_enough() {
    let host = name();
    let workspace = workspace().host(&host, rig().bridge).rules(&json!([
        { "host": host, "ports": [443], "action": "ask" },
    ]));
    let (name, other) = (token("f"), token("g"));
    let (session, beside) = (workspace.session(&name), workspace.session(&other));
    let follow = |words: &[&str]| {
        let mut child = workspace.spawn(&[&["approvals", "--follow"], words].concat());
        let screen = Screen::of(child.stdout.take().unwrap());
        (child, screen)
    };
    let ask = |session: &Session<'_>, n: u32| {
        begin(session, &curl(&format!("https://{host}/bytes/{n}"), ""))
    };
    // One of every session, for a person, and two of this one: who comes first sees nothing yet, who comes later what waits by then.
    let (all, shown) = follow(&[]);
    let (own, told) = follow(&["--json", &name]);
    std::thread::sleep(A_WHILE);
    assert_eq!(told.text(), "");
    let first = ask(&session, 1);
    let one = asked(&session, 1).remove(0);
    shown.shows(&format!("{}  ", id(&one)));
    shown.shows(&format!("what  {host}:443 https GET /bytes/1\n"));
    told.shows(id(&one));
    let (late, listed) = follow(&[&name]);
    listed.shows("answer with `agentcontainer approve ID [--session]` or `agentcontainer deny ID`");
    assert!(listed.text().starts_with(id(&one)), "{}", listed.text());
    // What becomes of it: allowed, denied, given up by who asked, and asked elsewhere.
    workspace.cli(&["approve", id(&one)]).status(0);
    assert_eq!(end(first), "200");
    let second = ask(&session, 2);
    let two = asked(&session, 1).remove(0);
    workspace.cli(&["deny", id(&two)]).status(0);
    assert_eq!(end(second), "403 approval-denied");
    let gives_up = curl(&format!("https://{host}/bytes/3"), "--max-time 5");
    let third = begin(&session, &format!("{gives_up}; true"));
    let three = asked(&session, 1).remove(0);
    end(third);
    let fourth = ask(&beside, 4);
    let four = asked(&beside, 1).remove(0);
    workspace.cli(&["deny", id(&four)]).status(0);
    end(fourth);
    let last = ask(&session, 5);
    let five = asked(&session, 1).remove(0);
    workspace.cli(&["deny", id(&five)]).status(0);
    end(last);
    let became = [
        (&one, "approval-allowed"),
        (&two, "approval-denied"),
        (&three, "approval-withdrawn"),
        (&five, "approval-denied"),
    ];
    for screen in [&shown, &listed] {
        for (question, how) in became {
            screen.shows(&format!("{} is over: {how}\n", id(question)));
        }
    }
    shown.shows(&format!("{} is over: approval-denied\n", id(&four)));
    assert!(!listed.text().contains(id(&four)), "{}", listed.text());
    // For machines a line each, in the order in which it was.
    let of_the_last = || told.text().matches(id(&five)).count();
    let began = Instant::now();
    while of_the_last() < 2 {
        assert!(began.elapsed() < DEADLINE, "{}", told.text());
        std::thread::sleep(Duration::from_millis(50));
    }
    let lines: Vec<Value> = told
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected = became
        .iter()
        .flat_map(|(question, how)| [(id(question), ""), (id(question), *how)]);
    let said = lines.iter().map(|line| match line["open"]["id"].as_str() {
        Some(open) => (open, ""),
        None => (
            line["gone"]["id"].as_str().unwrap(),
            line["gone"]["how"].as_str().unwrap(),
        ),
    });
    assert!(said.eq(expected), "{lines:#?}");
    assert_eq!(lines[0]["open"]["target"], "/bytes/1");
    for child in [all, own, late] {
        outcome::signal(child.id(), "-TERM", false);
        assert_eq!(outcome::wait(child, "approvals", DEADLINE).status, 143);
    }
    assert_eq!(standard().requests(&host).len(), 1);
}

#[test]
fn with_a_terminal_inside_nothing_is_written_to_it() {
    let host = name();
    let workspace = workspace()
        .gateway_line("approval_seconds = 3")
        .host(&host, rig().bridge)
        .rules(&json!([{ "host": host, "ports": [443], "action": "ask" }]));
    workspace.write();
    let binary = workspace.command(["run"]).get_program().to_owned();
    let mut command = std::process::Command::new("script");
    workspace.environment(&mut command);
    workspace.put(
        "ask.sh",
        format!(
            "echo BEGIN; {}; echo; echo END",
            curl(&format!("https://{host}/hello"), "")
        ),
    );
    let line = format!("{} run --lock --yes -- sh ask.sh", binary.display());
    command
        .args(["-qefc", &line, "/dev/null"])
        .env("TERM", "xterm");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Open until the end: an end of the input would be typed, and echoed.
    let typed = child.stdin.take();
    let said = outcome::wait(child, "run", DEADLINE);
    drop(typed);
    let text = said.status(0).stdout.replace('\r', "");
    let (_, inside) = text.split_once("BEGIN\n").unwrap();
    let (inside, _) = inside.split_once("END\n").unwrap();
    assert_eq!(inside, "403 approval-timeout\n");
    assert!(standard().requests(&host).is_empty());
}

#[test]
fn always_is_a_change_of_the_config_that_a_person_makes() {
    let host = name();
    let workspace = workspace().host(&host, rig().bridge);
    let text = format!(
        "// Ours.\n{{\n  \"image\": \"{}\",\n  \"agent\": {{ \"capabilities\": {{ \"network\": {{ \"egress\": {{\n    \"rules\": [\n      // Reading.\n      {{ \"host\": \"{host}\", \"ports\": [443], \"methods\": [\"GET\"], \"action\": \"ask\" }},\n    ],\n    \"unlisted\": \"ask\",\n  }} }} }} }},\n}}\n",
        rig().image
    );
    let path = workspace.put("agentcontainer.json", &text);
    workspace.write_host_config();
    let name = token("y");
    let words = [
        "run", "--yes", "--detach", "--name", &name, "--", "sleep", "600",
    ];
    workspace.cli(&words).status(0);
    let session = workspace.running(&name);
    let child = begin(&session, &curl(&format!("https://{host}/hello"), ""));
    let question = asked(&session, 1).remove(0);
    let shown = workspace.cli(&["approve", "--always", id(&question)]);
    shown
        .status(0)
        .prints("\"action\": \"allow\"")
        .prints("nothing was changed");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(asked(&session, 1).len(), 1, "it still waits");
    // What cannot be written is not allowed for the session either: no file may grow here.
    let words = ["approve", "--always", "--write", id(&question)];
    let command = workspace.command(words);
    let mut full = std::process::Command::new("sh");
    full.args(["-c", "ulimit -f 0; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(workspace.path());
    workspace.environment(&mut full);
    assert!(!full.output().unwrap().status.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(asked(&session, 1).len(), 1, "it still waits");
    let written = workspace.cli(&["approve", "--always", "--write", id(&question)]);
    written.status(0).prints("until the session ends");
    assert_eq!(end(child), "200");
    let after = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        after,
        text.replace("\"action\": \"ask\"", "\"action\": \"allow\"")
    );
    // What the session runs by is what was reviewed.
    let child = begin(&session, &curl(&format!("https://{host}/bytes/1"), ""));
    let question = asked(&session, 1).remove(0);
    workspace.cli(&["deny", id(&question)]).status(0);
    assert_eq!(end(child), "403 approval-denied");
    // What nothing lists gets an entry of its own.
    let child = begin(&session, &curl(&format!("http://new.{host}/hello"), ""));
    let question = asked(&session, 1).remove(0);
    let shown = workspace.cli(&["approve", "--always", id(&question)]);
    shown.status(0).prints(&format!("\"new.{host}:80\""));
    workspace.cli(&["deny", id(&question)]).status(0);
    assert_eq!(end(child), "403 approval-denied");
    workspace
        .cli(&["run", "--", "true"])
        .status(125)
        .says("reach by rule");
    workspace.cli(&["stop", &name]).status(0);
}
