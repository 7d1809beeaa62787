//! Requests of HTTP/2, in frames: in order in one of the many forms that has, or out of it in one or two ways.

use super::dice::Dice;
use super::{METHODS, Made, Sent, inner};
use crate::two::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PRIORITY, frame, literal,
};

type Field = (Vec<u8>, Vec<u8>);

fn field(name: &str, value: impl AsRef<[u8]>) -> Field {
    (name.as_bytes().to_vec(), value.as_ref().to_vec())
}

/// A request with its number in the target, on that stream. Its first bytes open the stream; what follows may come later.
pub fn request(dice: &mut Dice, number: usize, authority: &str, stream: u32) -> Made {
    let wild = dice.one_in(2);
    let mut plain = true;
    let mut odd = |n: usize| {
        let odd = wild && dice.one_in(n);
        plain &= !odd;
        odd
    };
    let (odd_method, odd_target, odd_authority, odd_pseudo) = (odd(7), odd(3), odd(8), odd(8));
    let (odd_length, odd_line, odd_trailer) = (odd(3), odd(4), odd(6));
    let method = if odd_method {
        dice.pick(&[
            "get",
            "CONNECT",
            "TRACE",
            "FOO",
            "DELETE",
            "P OST",
            "",
            "GET /t/1 HTTP/1.1\r\nX-Evil: y",
            "OPTIONS",
            "PUT\0",
        ])
    } else {
        dice.pick(&METHODS)
    };
    let (target, heard) = target(dice, number, authority, odd_target);
    let mut sent = Sent::new(method, &heard);
    let named = if odd_authority {
        let forms = [
            "evil.example",
            "AUTHORITY@evil.example",
            "evil@AUTHORITY",
            "AUTHORITY, evil.example",
            "AUTHORITY\r\nX-Evil: y",
            "AUTHORITY/x",
            "api.example.com",
            "AUTHORITY.",
            "",
            "HTTPS://AUTHORITY",
            " AUTHORITY",
        ];
        dice.pick(&forms).replace("AUTHORITY", authority)
    } else {
        dice.pick(&[authority, &authority.to_uppercase()])
            .to_owned()
    };
    let mut pseudo = vec![
        field(":method", method),
        field(":scheme", "https"),
        field(":authority", &named),
        field(":path", &target),
    ];
    let at = dice.below(4);
    pseudo.swap(0, at);
    let mut late = None;
    if odd_pseudo {
        let which = dice.below(4);
        match dice.below(7) {
            0 => {
                pseudo.remove(which);
            }
            1 => pseudo.push(pseudo[which].clone()),
            2 => pseudo.push(field(":path", "/t/1")),
            3 => late = Some(pseudo.remove(which)),
            4 => pseudo.push(field(
                dice.pick(&[":foo", ":status", ":protocol", ":", ":Path"]),
                dice.pick(&["200", "websocket", "/t/1"]),
            )),
            5 => pseudo.push(field(":authority", "evil.example")),
            _ => {
                let forms = [
                    "http",
                    "HTTPS",
                    "",
                    "https\r\nX-Evil: y",
                    "https://evil.example/?",
                ];
                pseudo.retain(|(name, _)| name != b":scheme");
                pseudo.push(field(":scheme", dice.pick(&forms)));
            }
        }
    }
    let mut fields = lines(dice, number, authority, &mut sent);
    if odd_line {
        let (name, value) = odd_field(dice, authority);
        let proper = !name.is_empty()
            && name
                .iter()
                .all(|b| b.is_ascii_lowercase() || b"-_".contains(b))
            && name != b"host"
            && value.iter().all(u8::is_ascii_graphic);
        if proper {
            sent.field(&String::from_utf8_lossy(&name), &value);
        }
        fields.push((name, value));
    }
    let has_body = matches!(method, "POST" | "PUT") || dice.one_in(8);
    if has_body {
        sent.body = match dice.below(4) {
            0 => Vec::new(),
            1 => dice.bytes(),
            _ => inner(number, authority).into_bytes(),
        };
    }
    let length = sent.body.len();
    if odd_length {
        fields.extend(odd_lengths(dice, length));
    } else if has_body && dice.one_in(2) {
        fields.push(field("content-length", length.to_string()));
    }
    let at = dice.below(fields.len() + 1);
    if let Some(late) = late {
        fields.insert(at.max(1).min(fields.len()), late);
    }
    pseudo.extend(fields);
    let trailers = has_body && (odd_trailer || dice.one_in(6));
    let ends = !has_body || length == 0 && !trailers && dice.one_in(2);
    let mut bytes = vec![head(dice, stream, ends, &pseudo)];
    if !ends {
        data(dice, stream, &sent.body, !trailers, &mut bytes);
    }
    if trailers {
        let odd = odd_trailer.then(|| {
            dice.pick(&[
                ("content-length", "3"),
                (":path", "/t/1"),
                ("transfer-encoding", "chunked"),
                ("x-sum\r\nx-evil", "y"),
                ("x-sum", "1\r\nx-evil: y"),
                ("X-Sum", "1"),
                ("host", "evil.example"),
            ])
        });
        let (name, value) = odd.unwrap_or(("x-sum", "1"));
        bytes.push(head(dice, stream, true, &[field(name, value)]));
    }
    sent.plain = plain;
    sent.trailers = trailers;
    Made {
        bytes,
        sent,
        behind: None,
    }
}

/// As it is on the wire, and as it is heard where it is carried at all.
fn target(dice: &mut Dice, number: usize, authority: &str, odd: bool) -> (String, String) {
    if !odd {
        let query = dice.pick(&["", "", "?a=b", "?a=/../&b=%2e", "?", "?bare&c=%00"]);
        let target = format!("/t/{number}{query}");
        return (target.clone(), target);
    }
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
        "/t/N?a=b#/../x",
        "#/t/N",
        "?/t/N",
        "/x/N",
        "/t/secret/N",
        "/t/%73ecret/N",
        "*",
        "",
        "t/N",
        "https://AUTHORITY/t/N",
        "https://evil.example/t/N",
        "AUTHORITY/t/N",
        "/t/N\\x",
        "/t/N\u{1}",
        "/t/N\0",
        "/t/é/N",
        "/t/N x",
        "/t/N HTTP/1.1\r\nX-Evil: y",
        "/t/N\nX-Evil: y",
        "/t/N?x= y",
        "/t/N?_method=DELETE",
        "/t/%C3%A9/N",
        "/t/N\u{7f}",
    ];
    let form = dice.pick(&forms);
    let target = form
        .replace("AUTHORITY", authority)
        .replace('N', &number.to_string());
    // A fragment is nobody's: it is gone before anything is decided.
    let heard = target.split('#').next().unwrap_or_default().to_owned();
    (target, heard)
}

/// Fields that are in order.
fn lines(dice: &mut Dice, number: usize, authority: &str, sent: &mut Sent) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut line = |name: &str, value: &[u8]| {
        fields.push(field(name, value));
        sent.field(name, value);
    };
    if dice.one_in(2) {
        line("x-one", &dice.value(number));
    }
    for _ in 0..dice.pick(&[0, 0, 1, 3]) {
        line("x-two", &dice.value(number));
    }
    for n in 0..dice.pick(&[0, 0, 1, 2, 5]) {
        line("cookie", format!("c{n}={number}").as_bytes());
    }
    if dice.one_in(4) {
        line("x-empty", b"");
    }
    if dice.one_in(10) {
        line("x-long", &vec![b'l'; 2000]);
    }
    if dice.one_in(6) {
        fields.push(field("host", authority));
    }
    if dice.one_in(6) {
        let (name, value) = dice.pick(&[("te", "trailers"), ("expect", "100-continue")]);
        fields.push(field(name, value));
    }
    fields
}

fn odd_field(dice: &mut Dice, authority: &str) -> Field {
    let forms: [(&str, &str); 35] = [
        ("X-Upper", "b"),
        ("x a", "b"),
        ("x-a:", "b"),
        ("x-a: b\r\nx-evil", "c"),
        ("", "b"),
        ("é", "b"),
        ("x\0a", "b"),
        ("x-a", "b\r\nx-evil: c"),
        (
            "x-a",
            "b\r\n\r\nGET /t/1 HTTP/1.1\r\nhost: AUTHORITY\r\n\r\n",
        ),
        ("x-a", "b\nx-evil: c"),
        ("x-a", "b\rc"),
        ("x-a", "b\0c"),
        ("x-a", "b\u{7f}"),
        ("x-a", " b"),
        ("x-a", "b\t"),
        ("x-a", " "),
        ("content-type", " text/plain"),
        ("connection", "close"),
        ("connection", "x-one"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", ""),
        ("transfer_encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/x"),
        ("expect", "200-ok"),
        ("host", "evil.example"),
        ("host", "AUTHORITY\r\nx-evil: c"),
        ("trailer", "content-length"),
        ("proxy-authorization", "Basic eDp5"),
    ];
    let (name, value) = dice.pick(&forms);
    field(name, value.replace("AUTHORITY", authority))
}

fn odd_lengths(dice: &mut Dice, length: usize) -> Vec<Field> {
    let one = |value: String| field("content-length", value);
    let same = one(length.to_string());
    match dice.below(14) {
        0 => vec![same.clone(), same],
        1 => vec![same, one((length + 1).to_string())],
        2 => vec![one((length + 1).to_string())],
        3 => vec![one(length.saturating_sub(1).to_string())],
        4 => vec![one("0".to_owned())],
        5 => vec![one(format!("+{length}"))],
        6 => vec![one(format!("0{length}"))],
        7 => vec![one(format!("{length}, {length}"))],
        8 => vec![one(format!(" {length}"))],
        9 => vec![one(String::new())],
        10 => vec![one(format!("{length}\r\ntransfer-encoding: chunked"))],
        11 => vec![same, field("transfer-encoding", "chunked")],
        12 => vec![field("content_length", (length + 5).to_string())],
        _ => vec![one("18446744073709551616".to_owned())],
    }
}

/// A head in one frame or more, padded or not, with a priority or without; each literal of any kind.
fn head(dice: &mut Dice, stream: u32, ends: bool, fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        literal(dice.pick(&[0, 0x10, 0x40]), name, value, &mut block);
    }
    let cut = if dice.one_in(4) {
        dice.below(block.len() + 1)
    } else {
        block.len()
    };
    let (first, rest) = block.split_at(cut);
    let mut flags = if ends { END_STREAM } else { 0 };
    let mut payload = Vec::new();
    let padding = dice.pick(&[None, None, Some(0), Some(9)]);
    if let Some(padding) = padding {
        flags |= PADDED;
        payload.push(padding);
    }
    if dice.one_in(4) {
        flags |= PRIORITY;
        payload.extend([0, 0, 0, 0, 16]);
    }
    payload.extend(first);
    payload.resize(payload.len() + usize::from(padding.unwrap_or(0)), 0);
    if cut == block.len() {
        return frame(HEADERS, flags | END_HEADERS, stream, &payload);
    }
    let mut out = frame(HEADERS, flags, stream, &payload);
    out.extend(frame(CONTINUATION, END_HEADERS, stream, rest));
    out
}

fn data(dice: &mut Dice, stream: u32, body: &[u8], ends: bool, bytes: &mut Vec<Vec<u8>>) {
    let mut at = 0;
    loop {
        let left = body.len() - at;
        let take = dice.pick(&[left, left, left / 2, 0]).min(16_000);
        let last = take == left;
        let padding = dice.pick(&[None, None, Some(0), Some(9)]);
        let mut payload: Vec<u8> = padding.into_iter().collect();
        payload.extend(&body[at..at + take]);
        payload.resize(payload.len() + usize::from(padding.unwrap_or(0)), 0);
        let padded = if padding.is_some() { PADDED } else { 0 };
        let end = if last && ends { END_STREAM } else { 0 };
        bytes.push(frame(DATA, padded | end, stream, &payload));
        at += take;
        if last {
            return;
        }
    }
}
