//! What a session reached and was refused: read by `logs --network`, and made into entries by `policy suggest`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::peer::{Authority, Web};
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Workspace, rig};
use serde_json::{Value, json};

/// A workspace with one server that rules are about.
struct Ruled {
    workspace: Workspace,
    host: String,
    server: Web,
    _ca: Authority,
}

fn ruled() -> Ruled {
    let ca = Authority::for_names(&["*.log.test"]);
    let server = Web::https(&ca);
    let host = format!("{}.log.test", token("h"));
    let port = server.port;
    let workspace = Workspace::new()
        .gateway_line(&format!("ca_bundles = [\"{}\"]", ca.root().display()))
        .host(&host, rig().bridge)
        .rules(&json!([
            { "host": host, "ports": [port], "protocol": "https", "methods": ["GET"], "paths": ["/hello"] },
            { "host": host, "ports": [port], "protocol": "https", "action": "deny", "paths": ["/secret/**"] },
        ]));
    workspace.put("dial.py", include_str!("../../probe/dial.py"));
    Ruled {
        workspace,
        host,
        server,
        _ca: ca,
    }
}

/// Asks until the answer holds all of these: the record is written beside what it is about.
fn until(ask: impl Fn() -> String, all: &[&str]) -> String {
    let began = Instant::now();
    loop {
        let said = ask();
        let missing = all.iter().find(|words| !said.contains(**words));
        let Some(missing) = missing else { return said };
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "no {missing:?} in:\n{said}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn logs_show_each_response_refusal_and_connection_of_a_session_as_one_line() {
    let (opaque, nobody) = (Receiver::start(), Receiver::start());
    let Ruled {
        workspace,
        host,
        server,
        _ca,
    } = ruled();
    let (tcp, name) = (format!("{}.log.test", token("t")), token("l"));
    let workspace = workspace
        .allow(&[&format!("{tcp}:{}", opaque.port())])
        .host("nobody.log.test", rig().bridge);
    let session = workspace.session(&name);
    let url = format!("https://{host}:{}", server.port);
    session
        .inside(&format!(
            "curl -sf '{url}/hello?token=s3cret'; curl -s -d x {url}/hello; curl -s {url}/secret/x
            python3 dial.py tcp {tcp} {} across; python3 dial.py tcp nobody.log.test {} x
            cp $(readlink -f $(command -v python3)) \"$(printf 'odd\\033[2Jname')\"
            ./odd*name dial.py tcp nobody.log.test {} x",
            opaque.port(),
            nobody.port(),
            nobody.port()
        ))
        .prints("answer across");
    let logs = |words: &[&str], zone: &str| {
        let mut command = workspace.command([&["logs", &name, "--network"], words].concat());
        command.env("TZ", zone);
        outcome::finish(command, DEADLINE).ok().to_owned()
    };
    let answered = format!(" GET {url}/hello?token=*** 200 (");
    let refused = format!(" DENY POST {url}/hello request-not-listed by ");
    let denied = format!(" DENY GET {url}/secret/x request-denied by ");
    let closed = format!(" tcp {tcp}:{} closed 6 B out, 6 B in (", opaque.port());
    let unlisted = format!(" DENY tcp nobody.log.test:{} not-listed by ", nobody.port());
    let all = [&answered, &refused, &denied, &closed, &unlisted].map(String::as_str);
    let said = until(|| logs(&[], "UTC0"), &[&all[..], &["\\u{1b}[2J"]].concat());
    assert!(!said.contains('\x1b') && !said.contains("s3cret"), "{said}");
    let line = |words: &str| said.lines().filter(|line| line.contains(words)).count();
    assert_eq!(all.map(line), [1, 1, 1, 1, 2], "{said}");
    let rule = said.lines().find(|line| line.contains(&denied)).unwrap();
    assert!(rule.contains("agentcontainer.json:"), "{rule}");
    assert!(!said.contains("self-test"), "{said}");

    // In the person's own time.
    let hour = |text: &str| -> u32 { text[1..3].parse().unwrap() };
    let there = logs(&[], "XXX-5");
    for (here, there) in said.lines().zip(there.lines()) {
        assert_eq!((hour(here) + 5) % 24, hour(there), "{here} {there}");
        assert_eq!(here[3..], there[3..]);
        assert_eq!(here.as_bytes()[0], b'[', "{here}");
        assert_eq!(here.as_bytes()[13], b']', "{here}");
    }
    let last: Vec<&str> = said.lines().rev().take(2).collect();
    let tail = logs(&["-n", "2"], "UTC0");
    assert_eq!(tail.lines().rev().collect::<Vec<_>>(), last);
    // The same events as `audit events` has, and of them those that are shown.
    let events: Vec<Value> = workspace.events(&name);
    let shown = logs(&["--json"], "UTC0");
    assert_eq!(shown.lines().count(), said.lines().count());
    for line in shown.lines() {
        assert!(events.contains(&serde_json::from_str(line).unwrap()));
    }

    // Coloured on a terminal, unless the person wants none.
    let binary = workspace.command(["logs"]).get_program().to_owned();
    let line = format!("{} logs {name} --network", binary.display());
    for (no_color, coloured) in [("", true), ("1", false)] {
        let mut script = std::process::Command::new("script");
        workspace.environment(&mut script);
        script
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env("NO_COLOR", no_color);
        let out = outcome::finish(script, DEADLINE);
        assert_eq!(out.ok().contains("\x1b["), coloured, "{}", out.stdout);
        assert!(!out.stdout.contains("\x1b[2J"));
    }

    // What comes is shown as it comes, until the session ends; then it can be read all the same.
    let mut follow = workspace
        .command(["logs", &name, "--network", "-f", "-n", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    std::thread::sleep(Duration::from_millis(500));
    session
        .inside(&format!("curl -s {url}/secret/later"))
        .status(0);
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("/secret/later request-denied"), "{first}");
    drop(session);
    assert!(outcome::wait(follow, "logs -f", DEADLINE).status == 0);
    assert!(logs(&[], "UTC0").contains("/secret/later request-denied"));
    nobody.silent();
}

#[test]
fn suggest_names_the_smallest_entries_and_write_adds_them_for_the_next_review() {
    let fresh = Receiver::start();
    let Ruled {
        workspace,
        host,
        server,
        _ca,
    } = ruled();
    let (new, bad, name) = (
        format!("{}.log.test", token("n")),
        format!("{}.log.test", token("b")),
        token("s"),
    );
    let workspace = workspace
        .host(&new, rig().bridge)
        .host(&bad, rig().bridge)
        .deny(&[&bad]);
    let port = server.port;
    let url = format!("https://{host}:{port}");
    let session = workspace.session(&name);
    session.inside(&format!(
        "curl -s -d x {url}/new; curl -s -d x {url}/new; curl -s {url}/secret/x; curl -s -g '{url}/a/*'
        curl -sk https://{new}; python3 dial.py tcp {new} {} x; curl -sk https://{bad}
        curl -s http://metadata.google.internal; curl -s -m 2 http://169.254.169.254; curl -s -m 2 http://{}
        true",
        fresh.port(),
        rig().bridge
    )).status(0);
    drop(session);
    let suggest = |words: &[&str]| workspace.cli(&[&["policy", "suggest", &name], words].concat());
    // Comments are put in once it has ended: nothing that was approved changes by them.
    let file = workspace.path().join("agentcontainer.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replacen("{\n", "// Ours.\n{\n  // The image.\n", 1);
    std::fs::write(&file, &text).unwrap();
    let said: Value = serde_json::from_str(suggest(&["--json"]).ok()).unwrap();
    let entries: Vec<&Value> = said["suggestions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["entry"])
        .collect();
    let rule = json!({ "host": host, "ports": [port], "protocol": "https", "methods": ["POST"], "paths": ["/new"] });
    let mut wanted = [json!(new), json!(format!("{new}:{}", fresh.port())), rule];
    wanted.sort_by_key(Value::to_string);
    let mut sorted: Vec<Value> = entries.into_iter().cloned().collect();
    sorted.sort_by_key(Value::to_string);
    assert_eq!(sorted, wanted, "{said}");
    assert_eq!(said["place"], "agent.capabilities.network.egress");
    let of_rule = said["suggestions"].as_array().unwrap().last().unwrap();
    let programs = of_rule["programs"].as_object().unwrap();
    let curl = |program: &String| ["/usr/bin/curl", "curl (gone)"].contains(&program.as_str());
    assert!(programs.keys().all(curl), "{said}");
    let times: u64 = programs.values().filter_map(Value::as_u64).sum();
    assert_eq!(times, 2, "{said}");
    for (what, why) in [
        (format!("{bad}:443"), "deniedDomains"),
        (format!("GET {host}:{port}/secret/x"), "denied by"),
        (format!("GET {host}:{port}/a/*"), "`*`"),
        ("metadata.google.internal:80".to_owned(), "metadata"),
        ("169.254.169.254:80".to_owned(), "metadata"),
        (format!("{}:80", rig().bridge), "private"),
    ] {
        let without = said["without"].as_array().unwrap();
        let found = without.iter().find(|one| one["what"] == what.as_str());
        let found = found.unwrap_or_else(|| panic!("no {what} in {said}"));
        assert!(found["why"].as_str().unwrap().contains(why), "{found}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    suggest(&[]).status(0).prints("    // ").prints(&new);

    // A link is not written through, and what it leads to stays.
    let aside = workspace.path().join("aside.json");
    std::fs::rename(&file, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &file).unwrap();
    suggest(&["--write"]).status(125).says("symbolic link");
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), text);
    std::fs::remove_file(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();

    suggest(&["--write"]).status(0).prints("+ ").prints("/new");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("// Ours.") && written.contains("// The image."));
    suggest(&["--write"]).status(0).prints("nothing to add");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    // Nobody approved it yet; then it is what the session lacked, and no more.
    workspace.cli(&["run", "--", "true"]).status(125).says(&new);
    assert!(!server.requests().iter().any(|one| one["path"] == "/new"));
    let script = format!(
        "curl -s -o /dev/null -w '%{{http_code}} ' -d x {url}/new; curl -s -o /dev/null -w '%{{http_code}} ' {url}/new
        python3 dial.py tcp {new} {} through",
        fresh.port()
    );
    let out = workspace.cli(&["run", "--yes", "--", "sh", "-c", &script]);
    assert_eq!(out.ok(), "200 403 answer through");
    assert!(server.requests().iter().any(|one| one["path"] == "/new"));
    assert!(fresh.heard_bytes(b"through"));
}
