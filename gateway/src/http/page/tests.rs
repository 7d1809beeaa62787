#![allow(clippy::unwrap_used)]
use super::*;

fn facts() -> Blocked<'static> {
    Blocked {
        status: 403,
        code: "not-listed",
        host: "evil.example",
        port: 80,
        rule: None,
        why: "no rule names this host",
    }
}

#[test]
fn a_denial_names_host_rule_file_and_command_in_every_form() {
    for form in [Form::Text, Form::Html, Form::Json] {
        let page = blocked(facts(), form);
        assert_eq!((page.status, page.code), (403, Some("not-listed")));
        for word in [
            "evil.example",
            "not-listed",
            "agentcontainer.json",
            "allowedDomains",
            "agentcontainer policy explain evil.example:80",
            "http://agentcontainer.internal/",
        ] {
            assert!(page.body.contains(word), "{word} in {}", page.body);
        }
    }
    let json: serde_json::Value = serde_json::from_str(&blocked(facts(), Form::Json).body).unwrap();
    assert_eq!(json["code"], "not-listed");
    assert_eq!(json["rule"], serde_json::Value::Null);
}

#[test]
fn the_rule_that_denies_is_named_with_its_place() {
    let rule = audit::Rule {
        name: "deniedDomains \"evil.example\"".into(),
        origin: "agentcontainer.json:3:5".into(),
    };
    let page = blocked(
        Blocked {
            code: "denied-by-rule",
            rule: Some(&rule),
            ..facts()
        },
        Form::Text,
    );
    assert!(
        page.body
            .contains("deniedDomains \"evil.example\" (agentcontainer.json:3:5)")
    );
}

#[test]
fn what_others_chose_is_escaped() {
    let rule = audit::Rule {
        name: "<script>alert(1)</script>".into(),
        origin: "a\"b'&.json:1:1\x1b[31m".into(),
    };
    let hostile = Blocked {
        rule: Some(&rule),
        why: "\x1b[2J<b>\r\nX-Injected: 1",
        ..facts()
    };
    let html = blocked(hostile, Form::Html).body;
    assert!(!html.contains("<script>") && !html.contains("<b>") && !html.contains('\x1b'));
    let text = blocked(hostile, Form::Text);
    assert!(!text.body.contains('\x1b') && !text.body.contains("\r\n"));
    let raw = String::from_utf8(text.raw()).unwrap();
    assert!(
        raw.split("\r\n\r\n")
            .next()
            .unwrap()
            .lines()
            .all(|l| !l.starts_with("X-Injected"))
    );
    let json = blocked(hostile, Form::Json).body;
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
}

#[test]
fn the_form_is_the_one_the_client_likes_best() {
    for (accept, form) in [
        ("", Form::Text),
        ("*/*", Form::Text),
        ("application/json", Form::Json),
        ("application/vnd.github+json", Form::Json),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            Form::Html,
        ),
        ("text/html;q=0.5, application/json;q=0.9", Form::Json),
        ("application/json;q=0, text/plain;q=0.1", Form::Text),
        ("image/png", Form::Text),
        ("text/html;q=nonsense", Form::Text),
    ] {
        assert_eq!(Form::accepted(accept), form, "{accept}");
    }
}

#[test]
fn a_raw_page_is_one_whole_response() {
    let raw = String::from_utf8(blocked(facts(), Form::Text).raw()).unwrap();
    let (head, body) = raw.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"));
    assert!(head.contains("x-agentcontainer-blocked: not-listed"));
    assert!(head.contains(&format!("content-length: {}", body.len())));
    assert!(head.contains("connection: close"));
}
