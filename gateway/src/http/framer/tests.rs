#![allow(clippy::unwrap_used)]
use crate::http::head::{Host, Scheme};
use schema::host::HostName;

use super::*;

fn framer() -> Framer {
    Framer::new(Authority {
        host: Host::Name(HostName::parse("example.com").unwrap()),
        port: 80,
        scheme: Scheme::Http,
    })
}

const GET: &str = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";

fn chunked(body: &str) -> String {
    format!("POST /c HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn sized(body: &str) -> String {
    let n = body.len();
    format!("POST /l HTTP/1.1\r\nHost: example.com\r\nContent-Length: {n}\r\n\r\n{body}")
}

fn all(input: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::new();
    framer().push(input, &mut out).map_err(|r| r.refusal)?;
    Ok(out)
}

#[test]
fn what_is_accepted_comes_out_as_it_went_in_cut_at_every_byte() {
    let stream = [
        GET.to_owned(),
        sized("hello"),
        chunked("5\r\nhello\r\n0A\r\n0123456789\r\n0\r\n\r\n"),
        chunked("1\r\nx\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n"),
        GET.to_owned(),
    ]
    .concat();
    let stream = stream.as_bytes();
    assert_eq!(all(stream).unwrap(), stream);
    for cut in 0..stream.len() {
        let mut framer = framer();
        let mut out = Vec::new();
        framer.push(&stream[..cut], &mut out).unwrap();
        framer.push(&stream[cut..], &mut out).unwrap();
        assert_eq!(out, stream, "cut at {cut}");
        assert!(!framer.in_request());
    }
    let mut framer = framer();
    let mut out = Vec::new();
    for byte in stream {
        framer.push(&[*byte], &mut out).unwrap();
    }
    assert_eq!(out, stream);
}

#[test]
fn a_head_is_held_back_until_it_is_whole() {
    let mut framer = framer();
    let mut out = Vec::new();
    let (last, all) = GET.as_bytes().split_last().unwrap();
    framer.push(all, &mut out).unwrap();
    assert!(out.is_empty() && framer.in_request());
    framer.push(&[*last], &mut out).unwrap();
    assert_eq!(out, GET.as_bytes());
}

// D14
#[test]
fn chunks_have_one_spelling() {
    for bad in [
        "5;ext=1\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "\r\nhello\r\n",
        "1000000000000000\r\n",
        "ffffffffffffffff\r\n",
        "fffffffffffffffff\r\n",
        "g\r\n",
    ] {
        assert_eq!(all(chunked(bad).as_bytes()), Err(Refusal::Chunk), "{bad:?}");
    }
    for bad in [
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nHost: evil.example\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n\n",
    ] {
        assert_eq!(
            all(chunked(bad).as_bytes()),
            Err(Refusal::Trailers),
            "{bad:?}"
        );
    }
    assert!(all(chunked("fffffffffffffff\r\n").as_bytes()).is_ok());
}

#[test]
fn a_second_request_is_checked_like_the_first() {
    let smuggled = [GET, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"].concat();
    let mut framer = framer();
    let mut out = Vec::new();
    let refused = framer.push(smuggled.as_bytes(), &mut out).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Misdirected);
    assert_eq!(refused.request_line.unwrap(), "GET / HTTP/1.1");
    assert_eq!(out, GET.as_bytes());
    assert!(framer.push(GET.as_bytes(), &mut out).is_err());
    assert_eq!(out, GET.as_bytes());
}

#[test]
fn bytes_behind_a_body_are_the_next_request() {
    let stream = [sized("hello").as_str(), "GARBAGE"].concat();
    let mut out = Vec::new();
    framer().push(stream.as_bytes(), &mut out).unwrap();
    assert_eq!(out, sized("hello").as_bytes());
    let stream = [sized("hello").as_str(), "\r\n", GET].concat();
    assert_eq!(all(stream.as_bytes()), Err(Refusal::RequestLine));
}

#[test]
fn what_cannot_become_a_request_is_refused_at_once() {
    assert_eq!(all(b"\x16\x03\x01"), Err(Refusal::RequestLine));
    assert_eq!(all(b"\r\n"), Err(Refusal::RequestLine));
    assert_eq!(all(b"GET / HTTP/1.1\n"), Err(Refusal::LineEnd));
}

#[test]
fn a_head_that_does_not_end_is_refused_at_its_bound() {
    let mut head = b"GET / HTTP/1.1\r\nX: ".to_vec();
    head.resize(limits::HTTP_HEAD - 1, b'a');
    assert_eq!(all(&head), Ok(Vec::new()));
    head.push(b'a');
    assert_eq!(all(&head), Err(Refusal::HeadTooLong));
    // A whole head of exactly the bound passes, however much follows it.
    let mut head = b"GET / HTTP/1.1\r\nHost: example.com\r\nX: ".to_vec();
    head.resize(limits::HTTP_HEAD - 4, b'a');
    head.extend_from_slice(b"\r\n\r\n");
    let bound = head.len();
    head.extend_from_slice(GET.as_bytes());
    assert_eq!(all(&head).unwrap().len(), bound + GET.len());
}

#[test]
fn a_chunk_line_and_trailers_have_bounds() {
    let long = chunked(&"1".repeat(limits::HTTP_CHUNK_LINE + 1));
    assert_eq!(all(long.as_bytes()), Err(Refusal::Chunk));
    let trailers = |n: usize| {
        let line = format!("X: {}\r\n", "y".repeat(n - 5 - 2));
        all(chunked(&format!("0\r\n{line}\r\n")).as_bytes())
    };
    assert!(trailers(limits::HTTP_TRAILERS).is_ok());
    assert_eq!(trailers(limits::HTTP_TRAILERS + 1), Err(Refusal::Trailers));
}

#[test]
fn body_bytes_may_pass_unseen_up_to_their_count() {
    let mut framer = framer();
    let mut out = Vec::new();
    let head = sized("0123456789");
    framer
        .push(&head.as_bytes()[..head.len() - 10], &mut out)
        .unwrap();
    assert_eq!(framer.passable(), 10);
    framer.passed(4);
    assert_eq!(framer.passable(), 6);
    framer.passed(6);
    assert_eq!(framer.passable(), 0);
    assert!(!framer.in_request());
}

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

// D18
#[test]
fn nothing_behind_a_request_for_websocket_is_a_request() {
    let stream = [GET, WEBSOCKET, GET].concat();
    for cut in 0..stream.len() {
        let mut framer = framer();
        let mut out = Vec::new();
        framer.push(&stream.as_bytes()[..cut], &mut out).unwrap();
        framer.push(&stream.as_bytes()[cut..], &mut out).unwrap();
        assert_eq!(out, [GET, WEBSOCKET].concat().as_bytes(), "cut at {cut}");
        assert!(framer.is_switching() && !framer.in_request());
        assert_eq!(framer.passable(), 0);
        assert_eq!(framer.into_early(), GET.as_bytes());
    }
}

#[test]
fn what_comes_before_the_switch_has_a_bound() {
    let early = |n: usize| all(&[WEBSOCKET.as_bytes(), &vec![b'x'; n]].concat());
    assert!(early(limits::HTTP_EARLY).is_ok());
    assert_eq!(early(limits::HTTP_EARLY + 1), Err(Refusal::Early));
}
