//! Requests of HTTP/1.1, in bytes: in order, or out of it in one or two ways.

use super::dice::Dice;
use super::{METHODS, Made, Sent, inner, smuggled};

/// A request with its number in the target.
pub fn request(dice: &mut Dice, number: usize, authority: &str) -> Made {
    let wild = dice.one_in(2);
    let mut plain = true;
    let mut odd = |n: usize| {
        let odd = wild && dice.one_in(n);
        plain &= !odd;
        odd
    };
    let (odd_method, odd_target, odd_version, odd_host, odd_length) =
        (odd(6), odd(3), odd(12), odd(8), odd(3));
    let (odd_line, odd_end, odd_chunk) = (odd(4), odd(10), odd(3));
    let method = if odd_method {
        dice.pick(&[
            "get", "CONNECT", "TRACE", "FOO", "DELETE", "P\tOST", "", "GET GET", "OPTIONS",
        ])
    } else {
        dice.pick(&METHODS)
    };
    let target = if odd_target {
        let forms = [
            "/t/N/../x",
            "//t/N",
            "/t/%2e%2e/N",
            "/t/N;x=1",
            "/t//N",
            "/t/./N",
            "/t/N%00",
            "/t/N%2fx",
            "/t/N#x",
            "/x/N",
            "/t/secret/N",
            "/t/%73ecret/N",
            "*",
            "t/N",
            "http://AUTHORITY/t/N",
            "https://AUTHORITY/t/N",
            "http://evil.example/t/N",
            "https://evil.example/t/N",
            "http://AUTHORITY@evil/t/N",
            "/t/N\\x",
            "/t/N\u{1}",
            "/t/é/N",
            "/t/N?x= y",
            "/t/N?_method=DELETE",
            "/t/%C3%A9/N",
        ];
        let form = dice.pick(&forms);
        form.replace("AUTHORITY", authority)
            .replace('N', &number.to_string())
    } else {
        let query = dice.pick(&["", "", "?a=b", "?a=/../&b=%2e", "?", "?bare&c=%00"]);
        format!("/t/{number}{query}")
    };
    let version = if odd_version {
        dice.pick(&[
            "HTTP/1.0",
            "HTTP/2.0",
            "http/1.1",
            "HTTP/1.1 ",
            "HTTP/1.2",
            "",
        ])
    } else {
        "HTTP/1.1"
    };
    let end = if odd_end {
        dice.pick(&["\n", "\r", "\r\r\n"])
    } else {
        "\r\n"
    };
    let mut head = format!("{method} {target} {version}{end}").into_bytes();
    if odd_host {
        let lines = [
            "",
            "Host: evil.example\r\n",
            "Host: AUTHORITY\r\nHost: AUTHORITY\r\n",
            "Host : AUTHORITY\r\n",
            " Host: AUTHORITY\r\n",
            "Host: AUTHORITY, evil\r\n",
            "Host: AUTHORITY\r\n x: y\r\n",
            "hOsT: AUTHORITY\r\n",
            "Host: AUTHORITY.\r\n",
        ];
        head.extend(dice.pick(&lines).replace("AUTHORITY", authority).bytes());
    } else {
        head.extend(format!("Host: {authority}{end}").bytes());
    }
    // What is in the head is what is asked for, whatever form it has.
    let origin = ["http://", "https://"]
        .iter()
        .find_map(|scheme| target.strip_prefix(&format!("{scheme}{authority}")));
    let mut sent = Sent::new(method, origin.unwrap_or(&target));
    let mut behind = None;
    let has_body = matches!(method, "POST" | "PUT") || dice.one_in(8);
    let mut wire = Vec::new();
    if has_body {
        // What would be seen if somebody took the body for the next request.
        sent.body = match dice.below(4) {
            0 => Vec::new(),
            1 => dice.bytes(),
            _ => inner(number, authority).into_bytes(),
        };
        let length = sent.body.len();
        if odd_length {
            let lines = [
                // The body is no body, and what it holds is the next request.
                "Content-Length: 0\r\n".to_owned(),
                String::new(),
                format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"),
                format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
                format!("Content-Length: +{length}\r\n"),
                format!("Content-Length: 0{length}\r\n"),
                format!("Content-Length: {length}, {length}\r\n"),
                format!("Content-Length : {length}\r\n"),
                format!("Content_Length: {length}\r\n"),
                format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".to_owned(),
                "Transfer-Encoding: xchunked\r\n".to_owned(),
                "Transfer-Encoding: chunked, identity\r\n".to_owned(),
                "Transfer-Encoding:\u{b}chunked\r\n".to_owned(),
                "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
            ];
            let form = dice.below(lines.len());
            head.extend(lines[form].bytes());
            wire.extend(&sent.body);
            if form < 2 {
                sent.body.clear();
                behind = Some(smuggled(number));
            }
        } else if dice.one_in(2) {
            head.extend(b"Transfer-Encoding: chunked\r\n");
            chunks(dice, &sent.body, odd_chunk, &mut wire);
        } else {
            head.extend(format!("Content-Length: {length}\r\n").bytes());
            wire.extend(&sent.body);
        }
    }
    lines(dice, number, &mut sent, &mut head);
    if odd_line {
        let lines = [
            "X-A: b\r\n folded",
            "X A: b",
            ": b",
            "X-A",
            "X-A:\0b",
            "X-A: b\rContent-Length: 3",
            "X-A: b\nX: c",
            "Upgrade: h2c",
            "Upgrade: websocket",
            "Connection: content-length",
            "Connection: host",
            "X-HTTP-Method-Override: DELETE",
            "X_Http_Method: DELETE",
            "X-Original-URL: /x",
            "Expect: 200-ok",
            "Transfer_Encoding: chunked",
            "Trailer: content-length",
        ];
        let line = dice.pick(&lines);
        if let Some((name, value)) = line.split_once(": ")
            && name.starts_with('X')
            && !value.contains(['\r', '\n'])
        {
            sent.field(name, value.as_bytes());
        }
        head.extend(line.bytes());
        head.extend(b"\r\n");
    }
    head.extend(end.bytes());
    head.extend(wire);
    sent.plain = plain;
    Made {
        bytes: vec![head],
        sent,
        behind,
    }
}

/// Fields that are in order: those that go on, and those that are between neighbours.
fn lines(dice: &mut Dice, number: usize, sent: &mut Sent, head: &mut Vec<u8>) {
    let mut line = |name: &str, blanks: (&str, &str), value: &[u8]| {
        head.extend(format!("{name}:{}", blanks.0).bytes());
        head.extend(value);
        head.extend(format!("{}\r\n", blanks.1).bytes());
    };
    if dice.one_in(2) {
        let value = dice.value(number);
        let blanks = dice.pick(&[(" ", ""), ("", ""), ("\t ", " \t"), ("", " ")]);
        line("X-One", blanks, &value);
        sent.field("x-one", &value);
    }
    for _ in 0..dice.pick(&[0, 0, 1, 3]) {
        let value = dice.value(number);
        line("x-tWo", (" ", ""), &value);
        sent.field("x-two", &value);
    }
    if dice.one_in(4) {
        let crumbs = format!("a={number}; c=d");
        line("Cookie", (" ", ""), crumbs.as_bytes());
        sent.field("cookie", crumbs.as_bytes());
    }
    if dice.one_in(3) {
        let (name, value) = dice.pick(&[
            ("Accept", "*/*"),
            ("X-Empty", ""),
            ("Connection", "keep-alive"),
            ("Connection", "close"),
            ("Expect", "100-continue"),
            ("TE", "trailers"),
        ]);
        line(name, (" ", ""), value.as_bytes());
        match name {
            "Accept" | "X-Empty" => sent.field(name, value.as_bytes()),
            _ => sent.last = value == "close",
        }
    }
}

fn chunks(dice: &mut Dice, body: &[u8], odd: bool, wire: &mut Vec<u8>) {
    let at = dice.below(body.len() + 1);
    for piece in [&body[..at], &body[at..]] {
        if piece.is_empty() {
            continue;
        }
        let size = format!("{:x}", piece.len());
        let line = if odd {
            let forms = [
                "0xN\r\n",
                "N \r\n",
                "+N\r\n",
                "N;a=b\r\n",
                "N;a=\"\r\n\"\r\n",
                "N\n",
                "00000000000000000N\r\n",
                "FFFFFFFFFFFFFFFFN\r\n",
            ];
            dice.pick(&forms).replace('N', &size)
        } else {
            format!("{size}\r\n")
        };
        wire.extend(line.as_bytes());
        wire.extend(piece);
        wire.extend(if odd && dice.one_in(4) {
            &b"\n"[..]
        } else {
            b"\r\n"
        });
    }
    wire.extend(
        if odd && dice.one_in(3) {
            dice.pick(&[
                "0\r\nX: y\r\n\r\n",
                "0\n\n",
                "0\r\nContent-Length: 3\r\n\r\n",
                "0;x\r\n\r\n",
            ])
        } else {
            "0\r\n\r\n"
        }
        .as_bytes(),
    );
}
