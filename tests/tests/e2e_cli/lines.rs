//! What `run` writes to a person's terminal beside the program: the banner's lines before it, one line for each thing that was denied.

use std::process::Command;

use agentcontainer_tests::Workspace;
use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::place::token;

/// Each denied place is tried more than once, by a program that is still there when it is looked who it is.
const TRIES: &str = r#"
import socket, time
for _ in range(3):
    for place in ("never.test", 9), ("192.0.2.1", 81):
        try:
            socket.create_connection(place, 5)
        except OSError:
            pass
time.sleep(2)
print("the program ends")
"#;

/// `run` at a terminal with a program that has none, or (`inside`) has it too; what came to the terminal.
fn at_a_terminal(workspace: &Workspace, name: &str, inside: bool, no_color: &str) -> String {
    let binary = workspace.command(["run"]).get_program().to_owned();
    let elsewhere = if inside { "" } else { " </dev/null >output" };
    let line = format!(
        "{} run --yes --name {name} -- python3 tries.py{elsewhere}",
        binary.display()
    );
    let mut script = Command::new("script");
    workspace.environment(&mut script);
    script
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env("NO_COLOR", no_color);
    let out = outcome::finish(script, DEADLINE);
    out.status(0);
    out.stdout
}

/// The same without its colours (SGR).
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| match part.split_once('m') {
        Some((style, rest)) if style.bytes().all(|b| b.is_ascii_digit() || b == b';') => {
            text + rest
        }
        _ => panic!("no colour: {part:?}"),
    })
}

/// A denial of something that a program did; that its name was looked up is another line.
fn is_of_a_program(line: &str) -> bool {
    line.starts_with("denied ") && line.contains(" by ")
}

#[test]
fn the_banner_and_each_denial_are_lines_at_a_persons_terminal() {
    let workspace = Workspace::new()
        .allow(&["a.test", "b.test:5432"])
        .deny(&["c.test"]);
    workspace.put("tries.py", TRIES);
    // What a terminal is sent while an image is looked up is not asked here.
    workspace.run(&["true"]).status(0);
    let name = token("l");
    let shown = at_a_terminal(&workspace, &name, false, "");
    // Raw or not, each line begins at the left.
    assert_eq!(shown.matches('\n').count(), shown.matches("\r\n").count());
    let text = plain(&shown).replace('\r', "");
    let lines: Vec<&str> = text.lines().collect();
    let of = |label: &str| -> Vec<&str> {
        let start = format!("{label:>11}  ");
        lines
            .iter()
            .filter_map(|line| line.strip_prefix(start.as_str()))
            .collect()
    };
    let [session] = of("session")[..] else {
        panic!("{text}")
    };
    let (id, rest) = session.split_once(' ').unwrap();
    assert_eq!(rest, format!("({name})"));
    assert!(
        !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()),
        "{id}"
    );
    assert!(
        of("image")[0].starts_with("agentcontainer-test:latest (only this engine has it: id "),
        "{text}"
    );
    assert_eq!(of("network"), ["a.test b.test:5432"]);
    assert!(
        of("held by")[0].starts_with("kernel (") && of("held by")[0].ends_with("), gateway"),
        "{text}"
    );
    assert!(
        of("note").contains(&"carried unread: b.test:5432"),
        "{text}"
    );
    // The banner is over before the first denial, which is one line however often it was tried.
    let denied: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| is_of_a_program(line))
        .collect();
    let [name_denied, address_denied] = denied[..] else {
        panic!("{text}")
    };
    assert!(
        name_denied.starts_with("denied never.test:9 by /usr/bin/python3"),
        "{name_denied}"
    );
    assert!(
        name_denied
            .ends_with("; `agentcontainer policy explain never.test:9` says what would allow it"),
        "{name_denied}"
    );
    assert!(
        address_denied.starts_with("denied 192.0.2.1:81 by /usr/bin/python3"),
        "{address_denied}"
    );
    assert!(
        address_denied.ends_with("; only names and `networks` of the config are reachable"),
        "{address_denied}"
    );
    let at = |start: &str| lines.iter().position(|line| line.starts_with(start));
    assert!(
        at("    held by") < at("denied ") && at("       note") < at("denied "),
        "{text}"
    );
    assert!(
        shown.contains("denied\x1b[0m never.test:9 by "),
        "{shown:?}"
    );
    assert!(shown.contains("held by\x1b[0m  kernel"), "{shown:?}");
    // What the program wrote is the program's alone.
    let output = std::fs::read_to_string(workspace.path().join("output")).unwrap();
    assert_eq!(output, "the program ends\n");
    assert!(!text.contains("the program ends"), "{text}");

    // The same lines without a colour, where the person wants none.
    let again = at_a_terminal(&workspace, &name, false, "1");
    assert!(!again.contains('\x1b'), "{again:?}");
    let after_id = |text: &str| {
        let text = text.replace('\r', "");
        let (_, after) = text.split_once(" (l").unwrap();
        let mut lines: Vec<String> = after.lines().map(str::to_owned).collect();
        // What is denied is on record in two places, which are told as they come.
        lines.sort();
        lines
    };
    assert_eq!(after_id(&again), after_id(&plain(&shown)));
}

#[test]
fn with_a_terminal_inside_denials_are_told_when_the_program_has_left_it() {
    let workspace = Workspace::new();
    workspace.put("tries.py", TRIES);
    // What a terminal is sent while an image is looked up is not asked here.
    workspace.run(&["true"]).status(0);
    let shown = at_a_terminal(&workspace, &token("t"), true, "1");
    let (before, after) = shown.split_once("the program ends\r\n").unwrap();
    assert!(
        before.contains("held by") && !before.contains("denied "),
        "{shown}"
    );
    let denied: Vec<&str> = after.lines().filter(|line| is_of_a_program(line)).collect();
    assert_eq!(denied.len(), 2, "{shown}");
    assert!(
        denied.iter().all(|line| line.ends_with(" (3 times)")),
        "{shown}"
    );
    for start in [
        "denied never.test:9 by /usr/bin/python3",
        "denied 192.0.2.1:81 by /usr/bin/python3",
    ] {
        assert!(denied.iter().any(|line| line.starts_with(start)), "{shown}");
    }
}
