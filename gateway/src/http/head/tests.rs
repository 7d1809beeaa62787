#![allow(clippy::unwrap_used)]
use super::*;

fn authority() -> Authority {
    Authority {
        host: Host::Name(HostName::parse("example.com").unwrap()),
        port: 80,
        scheme: Scheme::Http,
    }
}

fn at(port: u16) -> Authority {
    Authority {
        host: Host::Name(HostName::parse("example.com").unwrap()),
        port,
        scheme: Scheme::Http,
    }
}

fn check_text(head: &str) -> Result<Head, Refusal> {
    check(head.as_bytes(), &authority())
}

/// A head with one more header line.
fn with(line: &str) -> Result<Head, Refusal> {
    check_text(&format!(
        "POST /x HTTP/1.1\r\nHost: example.com\r\n{line}\r\n\r\n"
    ))
}

fn host(value: &str) -> Result<Head, Refusal> {
    check_text(&format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n"))
}

fn line(line: &str) -> Result<Head, Refusal> {
    check_text(&format!("{line}\r\nHost: example.com\r\n\r\n"))
}

#[test]
fn ordinary_requests_pass() {
    let none = Ok(Head {
        framing: Framing::Length(0),
        websocket: false,
    });
    assert_eq!(line("GET / HTTP/1.1"), none);
    assert_eq!(line("GET /a?b=c;d%00 HTTP/1.0"), none);
    assert_eq!(line("OPTIONS * HTTP/1.1"), none);
    assert_eq!(line("GET http://example.com/x HTTP/1.1"), none);
    assert_eq!(line("GET HTTP://EXAMPLE.com:80/x HTTP/1.1"), none);
    assert_eq!(line("GET http://example.com?q HTTP/1.1"), none);
    assert_eq!(
        with("Content-Length: 12").unwrap().framing,
        Framing::Length(12)
    );
    assert_eq!(
        with("transfer-encoding:\tChunked ").unwrap().framing,
        Framing::Chunked
    );
    assert_eq!(
        with("Expect: 100-Continue").unwrap().framing,
        Framing::Length(0)
    );
    // Java's client offers this on every first request.
    assert!(
        with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk")
            .is_ok()
    );
}

#[test]
fn the_host_has_to_be_the_one_that_was_dialled() {
    for same in [
        "example.com",
        "EXAMPLE.COM",
        "example.com.",
        "example.com:80",
        "  example.com\t",
    ] {
        assert!(host(same).is_ok(), "{same}");
    }
    for other in [
        "evil.example",
        "example.com:8080",
        "example.com:080000",
        "example.com:",
        "example.com:+80",
        "example.com:80:80",
        "user@example.com",
        "example.com/",
        "example.com evil.example",
        "example.com,evil.example",
        "[::1]",
        "127.0.0.1",
        "ｅxample.com",
        "example。com",
        "",
    ] {
        assert!(host(other).is_err(), "{other}");
    }
    let other_port = |value: &str| {
        check(
            format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n").as_bytes(),
            &at(8080),
        )
    };
    assert!(other_port("example.com:8080").is_ok());
    assert_eq!(other_port("example.com"), Err(Refusal::Misdirected));
    assert_eq!(Refusal::Misdirected.status(), 421);
}

#[test]
fn a_literal_address_is_named_by_itself_alone() {
    let authority = Authority {
        host: Host::Address(Ipv4Addr::new(10, 0, 0, 1)),
        port: 8080,
        scheme: Scheme::Http,
    };
    let head = |host: &str| {
        check(
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(),
            &authority,
        )
    };
    assert!(head("10.0.0.1:8080").is_ok());
    for other in [
        "10.0.0.1",
        "10.0.0.2:8080",
        "010.0.0.1:8080",
        "0xa000001:8080",
        "localhost:8080",
    ] {
        assert_eq!(head(other), Err(Refusal::Misdirected), "{other}");
    }
    assert_eq!(authority.to_string(), "10.0.0.1:8080");
    assert_eq!(at(80).to_string(), "example.com");
    assert_eq!(at(81).to_string(), "example.com:81");
}

// D12, D13
#[test]
fn an_absolute_target_has_to_name_the_same_host() {
    for target in [
        "http://evil.example/",
        "http://example.com@evil.example/",
        "http://user@example.com/",
        "http://example.com:81/",
        "http://example.com\\@evil/",
        "http:///x",
        "//evil.example/",
    ] {
        let result = line(&format!("GET {target} HTTP/1.1"));
        if target.starts_with("//") {
            // Origin form: a path that begins with two slashes, for the host of the Host field.
            assert!(result.is_ok());
        } else {
            assert!(result.is_err(), "{target}");
        }
    }
    for target in [
        "https://example.com/",
        "ftp://example.com/",
        "example.com:80",
        "example.com",
        "*",
    ] {
        assert_eq!(
            line(&format!("GET {target} HTTP/1.1")),
            Err(Refusal::TargetForm),
            "{target}"
        );
    }
}

#[test]
fn tunnels_and_echoes_are_refused() {
    for method in ["CONNECT", "TRACE", "TRACK", "connect", "Trace"] {
        let refusal = line(&format!("{method} / HTTP/1.1")).unwrap_err();
        assert_eq!(refusal.status(), 405, "{method}");
    }
    assert_eq!(
        line("CONNECT example.com:80 HTTP/1.1").unwrap_err().code(),
        "http-method"
    );
    assert_eq!(with("Expect: 200-ok"), Err(Refusal::Expect));
}

// D18
#[test]
fn websocket_is_the_only_switch_and_has_one_form() {
    const LINES: [&str; 4] = [
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];
    let ask = |start: &str, lines: &[&str]| {
        let lines = lines.join("\r\n");
        check_text(&format!("{start}\r\nHost: example.com\r\n{lines}\r\n\r\n"))
    };
    const GET: &str = "GET /x HTTP/1.1";
    assert!(ask(GET, &LINES).unwrap().websocket);
    // The order of the lines is nothing.
    let mut turned = LINES;
    turned.reverse();
    assert!(ask(GET, &turned).unwrap().websocket);
    for start in [
        "POST /x HTTP/1.1",
        "get /x HTTP/1.1",
        "GET /x HTTP/1.0",
        "HEAD /x HTTP/1.1",
    ] {
        assert_eq!(ask(start, &LINES), Err(Refusal::WebSocket), "{start}");
    }
    // Each line that is missing, but Upgrade: without it this is a request like others.
    for missing in [0, 2, 3] {
        let mut lines = LINES.to_vec();
        lines.remove(missing);
        assert_eq!(ask(GET, &lines), Err(Refusal::WebSocket), "{lines:?}");
    }
    assert!(!ask(GET, &[LINES[0], LINES[2], LINES[3]]).unwrap().websocket);
    for more in [
        LINES[2],
        LINES[3],
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 8",
        "Content-Length: 1",
        "Transfer-Encoding: chunked",
    ] {
        let mut lines = LINES.to_vec();
        lines.push(more);
        assert_eq!(ask(GET, &lines), Err(Refusal::WebSocket), "{more}");
        lines.rotate_right(1);
        assert_eq!(ask(GET, &lines), Err(Refusal::WebSocket), "{more} first");
    }
    for (at, bad) in [
        (0, "Connection: keep-alive"),
        (0, "Connection: xupgrade"),
        (2, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"),
        (2, "Sec-WebSocket-Key: x"),
        (2, "Sec-WebSocket-Key:"),
        (3, "Sec-WebSocket-Version: 8"),
        (3, "Sec-WebSocket-Version: 13, 8"),
    ] {
        let mut lines = LINES;
        lines[at] = bad;
        assert_eq!(ask(GET, &lines), Err(Refusal::WebSocket), "{bad}");
    }
    for other in [
        "Upgrade: foo",
        "Upgrade: websocket, h2c",
        "Upgrade: h2c, websocket",
        "Upgrade: websocket/13",
        "Upgrade: HTTP/2.0",
        "Upgrade: TLS/1.0",
        "Upgrade: h2c\r\nUpgrade: websocket",
        "Upgrade: websocket\r\nUpgrade: h2c",
        "Upgrade: websocket\r\nUpgrade: websocket",
        "Upgrade: h2c\r\nUpgrade: h2c",
        "Upgrade:",
    ] {
        let mut lines = LINES;
        lines[1] = other;
        assert_eq!(ask(GET, &lines), Err(Refusal::Upgrade), "{other}");
    }
    let mut lines = LINES;
    lines[1] = "Upgrade: h2c";
    assert!(!ask(GET, &lines).unwrap().websocket);
    assert_eq!(
        (Refusal::Upgrade.status(), Refusal::WebSocket.status()),
        (501, 400)
    );
}

// D13
#[test]
fn there_is_exactly_one_host() {
    assert_eq!(check_text("GET / HTTP/1.1\r\n\r\n"), Err(Refusal::Host));
    assert_eq!(check_text("GET / HTTP/1.0\r\n\r\n"), Err(Refusal::Host));
    for second in ["Host: example.com", "host: evil.example", "HOST:"] {
        assert_eq!(with(second), Err(Refusal::Host), "{second}");
    }
    for bad in [
        "Host : example.com",
        " Host: example.com",
        "Host\t: example.com",
        "Ho st: x",
    ] {
        assert_eq!(with(bad), Err(Refusal::HeaderLine), "{bad}");
    }
}

// D14
#[test]
fn a_body_has_one_length() {
    for bad in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 ",
        "Content-Length: 5 5",
        "Content-Length: 1000000000000000000",
        "Content-Length: 99999999999999999999999999",
        "Content-Length:",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding:",
        "Transfer_Encoding: chunked",
        "Content_Length: 5",
    ] {
        let result = with(bad);
        if bad == "Content-Length: 5 " {
            // Blanks around a value are not part of it.
            assert!(result.is_ok());
        } else {
            assert!(
                matches!(result, Err(Refusal::Framing | Refusal::HeaderLine)),
                "{bad:?}: {result:?}"
            );
        }
    }
    assert!(with("Content-Length: 999999999999999999").is_ok());
    let old =
        check_text("POST / HTTP/1.0\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old, Err(Refusal::Framing));
}

// D14
#[test]
fn lines_end_in_cr_lf_and_hold_neither() {
    for bad in [
        "GET / HTTP/1.1\nHost: example.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\n\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\r\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: example.com\r\n\r\n",
    ] {
        assert_eq!(check_text(bad), Err(Refusal::LineEnd), "{bad:?}");
    }
    for bad in [
        "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\x7fb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nX: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\n\tX: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.com\r\n\r\nmore",
        "GET / HTTP/1.1\r\nHost: example.com\r\n",
    ] {
        assert_eq!(check_text(bad), Err(Refusal::HeaderLine), "{bad:?}");
    }
}

#[test]
fn a_request_line_is_three_words() {
    for bad in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET HTTP/1.1",
        "GET / http/1.1",
        "GET / ",
        "G(T / HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /a\\b HTTP/1.1",
        "",
    ] {
        assert_eq!(line(bad), Err(Refusal::RequestLine), "{bad:?}");
    }
    for version in ["HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/1.10", "HTTP/01.1"] {
        assert_eq!(
            line(&format!("GET / {version}")),
            Err(Refusal::Version),
            "{version}"
        );
    }
    assert_eq!(check_text("PRI * HTTP/2.0\r\n\r\n"), Err(Refusal::Version));
}

#[test]
fn header_lines_are_counted() {
    let lines = |n: usize| {
        let more = "X: y\r\n".repeat(n - 1);
        check_text(&format!(
            "GET / HTTP/1.1\r\nHost: example.com\r\n{more}\r\n"
        ))
    };
    assert!(lines(limits::HTTP_HEADERS).is_ok());
    assert_eq!(
        lines(limits::HTTP_HEADERS + 1),
        Err(Refusal::TooManyHeaders)
    );
}

#[test]
fn a_target_has_a_bound() {
    let target = |n: usize| line(&format!("GET /{} HTTP/1.1", "a".repeat(n - 1)));
    assert!(target(limits::HTTP_TARGET).is_ok());
    assert_eq!(target(limits::HTTP_TARGET + 1), Err(Refusal::TargetTooLong));
}

#[test]
fn a_head_has_a_bound() {
    let head = |n: usize| {
        let start = "GET / HTTP/1.1\r\nHost: example.com\r\nX: ";
        let pad = n - start.len() - 4;
        check_text(&format!("{start}{}\r\n\r\n", "y".repeat(pad)))
    };
    assert!(head(limits::HTTP_HEAD).is_ok());
    assert_eq!(head(limits::HTTP_HEAD + 1), Err(Refusal::HeadTooLong));
}
