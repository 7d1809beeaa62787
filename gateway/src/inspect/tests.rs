#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::Write as _;

use ::base64::Engine as _;
use ::base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::Request;
use hyper::body::Bytes;

use super::formats::samples::{Random, Sample, all};
use super::formats::{FORMATS, WEAK};
use super::shape::{Alphabet, Shape, sealed};
use super::*;
use crate::limits;
use crate::view::{Unread, View};

fn to(name: &str, tls: bool) -> Destination {
    Destination {
        name: Some(HostName::parse(name).unwrap()),
        tls,
    }
}

/// A chain of one.
fn only(name: Option<Name>, level: Level, inspector: impl Inspector + 'static) -> Arc<Chain> {
    Arc::new(Chain::default().with(name, level, Arc::new(inspector)))
}

fn secrets() -> Arc<Chain> {
    only(Some(Name::Secrets), Level::Block, Secrets)
}

/// What passes of pieces, and what stops them.
fn carry(
    chain: &Arc<Chain>,
    fields: &[(&str, &str)],
    to: &Destination,
    pieces: &[&[u8]],
) -> (Vec<u8>, Vec<Finding>, Option<Finding>) {
    let mut request = Request::builder();
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let (mut out, mut flags) = (Vec::new(), Vec::new());
    let mut stream = match chain.body(&parts.headers, to, &mut flags) {
        Ok(stream) => stream,
        Err(finding) => return (out, flags, Some(finding)),
    };
    for piece in pieces {
        match stream.push(Bytes::copy_from_slice(piece), &mut flags) {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(finding) => return (out, flags, Some(finding)),
        }
    }
    match stream.finish(&mut flags) {
        Ok(bytes) => out.extend_from_slice(&bytes),
        Err(finding) => return (out, flags, Some(finding)),
    }
    (out, flags, None)
}

fn found(chain: &Arc<Chain>, to: &Destination, text: &str) -> Option<Finding> {
    carry(chain, &[], to, &[text.as_bytes()]).2
}

/// A host where it belongs.
fn home(format: &formats::Format) -> Option<String> {
    let host = format.hosts.first()?;
    Some(match host.strip_prefix("*.") {
        Some(base) => format!("a.b.{base}"),
        None => (*host).to_owned(),
    })
}

#[test]
fn the_table_names_many_formats_each_once() {
    assert!(FORMATS.len() >= 30, "{}", FORMATS.len());
    let names: HashSet<_> = FORMATS.iter().map(|format| format.name).collect();
    assert_eq!(names.len(), FORMATS.len());
    let prefixes: Vec<_> = FORMATS.iter().flat_map(|format| format.prefixes).collect();
    let different: HashSet<_> = prefixes.iter().collect();
    assert_eq!(prefixes.len(), different.len());
    for format in FORMATS {
        for host in format.hosts {
            HostName::parse(host.trim_start_matches("*.")).unwrap();
        }
    }
}

#[test]
fn every_format_is_found_however_it_is_cut_and_its_secret_part_does_not_pass() {
    let (chain, to) = (secrets(), to("evil.example.com", true));
    for sample in all() {
        if WEAK.contains(&sample.format.name) {
            continue;
        }
        let text = format!("{{\"a\": \"{}\", \"b\": 1}}", sample.text());
        let text = text.as_bytes();
        let name = sample.format.name;
        let ends = [text, &text[..text.len() - b"\", \"b\": 1}".len()]];
        for text in ends {
            for cut in 0..=text.len() {
                let (out, _, finding) = carry(&chain, &[], &to, &[&text[..cut], &text[cut..]]);
                let finding = finding.unwrap_or_else(|| panic!("{name} cut at {cut}"));
                assert_eq!((finding.kind, finding.level), (name, Level::Block));
                assert_eq!(finding.code, "inspection-secret");
                let begins = 7 + sample.ahead.len();
                assert!(
                    out.len() <= begins + sample.prefix.len(),
                    "{name} cut at {cut}"
                );
                assert!(!finding.to_string().contains(&sample.rest));
            }
        }
        // Byte by byte, with enough ahead of it that the overlap moves on.
        let ahead = "x".repeat(3000) + " ";
        let text = sample.text();
        let mut pieces: Vec<&[u8]> = vec![ahead.as_bytes()];
        pieces.extend(text.as_bytes().chunks(1));
        let (out, _, finding) = carry(&chain, &[], &to, &pieces);
        let finding = finding.unwrap_or_else(|| panic!("{name} byte by byte"));
        assert!(finding.at >= 3001);
        assert!(out.len() <= 3001 + sample.ahead.len() + sample.prefix.len());
    }
}

#[test]
fn a_key_on_its_way_home_is_no_finding_and_without_tls_it_is() {
    let chain = secrets();
    let mut homeless = 0;
    for sample in all() {
        let name = sample.format.name;
        if WEAK.contains(&name) {
            continue;
        }
        let Some(home) = home(sample.format) else {
            homeless += 1;
            continue;
        };
        let text = sample.text();
        assert_eq!(found(&chain, &to(&home, true), &text), None, "{name}");
        assert!(found(&chain, &to(&home, false), &text).is_some(), "{name}");
        let look_alike = format!("{home}.evil.example");
        assert!(
            found(&chain, &to(&look_alike, true), &text).is_some(),
            "{name}"
        );
        let other = format!("evil{}", home.trim_start_matches("a.b."));
        assert!(found(&chain, &to(&other, true), &text).is_some(), "{name}");
    }
    assert!(homeless >= 5, "registries' and one's own");
}

#[test]
fn what_is_published_on_purpose_is_recorded_and_hides_nothing_behind_it() {
    let (chain, to) = (secrets(), to("evil.example.com", true));
    let weak: Vec<Sample> = all()
        .into_iter()
        .filter(|sample| WEAK.contains(&sample.format.name))
        .collect();
    assert_eq!(weak.len(), WEAK.len());
    for sample in weak {
        let text = format!("a {} b", sample.text());
        let (out, flags, finding) = carry(&chain, &[], &to, &[text.as_bytes()]);
        assert_eq!((out, finding), (text.clone().into_bytes(), None));
        assert_eq!(flags.len(), 1);
        assert_eq!(
            (flags[0].kind, flags[0].level),
            (sample.format.name, Level::Flag)
        );
        let id = format!("AKIA{}", Random(5).of(Alphabet::Base32, 16));
        let both = format!("{text} {id} {text}");
        for cut in 0..both.len() {
            let (first, second) = both.as_bytes().split_at(cut);
            let finding = carry(&chain, &[], &to, &[first, second]).2;
            assert_eq!(finding.unwrap().kind, "aws-access-key-id");
        }
    }
}

#[test]
fn a_presigned_url_says_whose_it_is_and_is_no_finding() {
    let (chain, to) = (secrets(), to("cdn.example.com", true));
    let id = format!("AKIA{}", Random(3).of(Alphabet::Base32, 16));
    for (text, harmless) in [
        (
            format!("?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={id}%2F20260105%2F"),
            true,
        ),
        (format!("X-Amz-Credential%3D{id}%252F"), true),
        (format!("?AWSAccessKeyId={id}&Signature=x"), true),
        (
            format!("Authorization: AWS4-HMAC-SHA256 Credential={id}/20260105/eu"),
            true,
        ),
        (format!("?id={id}&x=y"), false),
        (format!("credential {id}"), false),
    ] {
        assert_eq!(found(&chain, &to, &text).is_none(), harmless, "{text}");
    }
}

#[test]
fn a_method_and_the_names_of_fields_are_looked_at() {
    let (chain, to) = (secrets(), to("evil.example.com", true));
    let key = format!("do{}_v1_{}", "p", Random(3).of(Alphabet::Hex, 64));
    let id = format!("AKIA{}", Random(3).of(Alphabet::Base32, 16));
    let head = |method: &str, name: &str| {
        let request = Request::builder().method(method).header(name, "x");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        chain.head(&parts, &to, &mut Vec::new())
    };
    assert_eq!(head("GET", "x-name"), Ok(()));
    assert_eq!(head(&id, "x-name").unwrap_err().field, Field::Method);
    assert!(head("GET", &key).is_err());
}

#[test]
fn a_short_message_waits_only_where_something_is_said_of_it() {
    let chain = only(Some(Name::ContentType), Level::Block, ContentType);
    let to = to("evil.example.com", true);
    let passes = |media: &str| {
        let (parts, ()) = Request::builder()
            .header("content-type", media)
            .body(())
            .unwrap()
            .into_parts();
        let mut stream = chain.body(&parts.headers, &to, &mut Vec::new()).unwrap();
        stream
            .push(Bytes::from_static(b"\0\0\0\0\0"), &mut Vec::new())
            .unwrap()
            .len()
    };
    assert_eq!(
        (passes("application/grpc"), passes("application/json")),
        (5, 0)
    );
}

#[test]
fn what_nearly_is_one_is_none() {
    let (chain, to) = (secrets(), to("evil.example.com", true));
    let near = |text: String, why: &str, sample: &Sample| {
        let finding = found(&chain, &to, &text);
        assert_eq!(finding, None, "{} {why}: {text}", sample.format.name);
    };
    for sample in all() {
        let text = sample.text();
        if sample.format.before == formats::Before::Boundary {
            near(format!("x{text}"), "within a word", &sample);
        }
        match sample.format.shape {
            Shape::Exactly(alphabet, ..) => {
                near(text[..text.len() - 1].to_owned(), "too short", &sample);
                let more = if alphabet == Alphabet::Hex { "a" } else { "A" };
                near(format!("{text}{more}"), "too long", &sample);
                near(format!("{text}zZ"), "goes on", &sample);
            }
            Shape::AtLeast(_, least) => {
                let end = sample.ahead.len() + sample.prefix.len() + least - 1;
                near(text[..end].to_owned(), "too short", &sample);
            }
            _ => {}
        }
        let same: String = sample.rest.chars().map(|_| 'A').collect();
        near(
            format!("{}{}{same}", sample.ahead, sample.prefix),
            "of one character",
            &sample,
        );
    }
    let mut random = Random(7);
    let token = sealed(&random.of(Alphabet::Alnum, 30));
    assert!(found(&chain, &to, &format!("ghp_{token}")).is_some());
    let other = if token.starts_with('a') { "b" } else { "a" };
    let wrong = format!("ghp_{other}{}", &token[1..]);
    let harmless = [
        wrong,
        ["AKIA", "IOSFODNN7EXAMPLE"].concat(),
        ["aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/", "bPxRfiCYEXAMPLEKEY"].concat(),
        "if text.contains(\"-----BEGIN PRIVATE KEY-----\") { return Err(\"-----END PRIVATE KEY-----\") }".to_owned(),
        "A file that begins with -----BEGIN RSA PRIVATE KEY----- is one, and what follows is Base64.".to_owned(),
        format!("-----BEGIN CERTIFICATE-----\n{}\n", random.of(Alphabet::Base64, 64)),
        format!("-----BEGIN PUBLIC KEY-----\n{}\n", random.of(Alphabet::Base64, 64)),
        ["AIza", "SyAbCdEfGhIjKlMnOpQrStUvWxYz0123456"].concat(),
        ["dapi", "0123456789abcdef0123456789abcdef"].concat(),
        "sk-learn, sk-is-a-word-and-so-is-everything-that-follows-it-here-for-long".to_owned(),
    ];
    for text in harmless {
        assert_eq!(found(&chain, &to, &text), None, "{text}");
    }
    // The spelling that the documents of the format's makers give for a checksum.
    assert_eq!(
        sealed("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"),
        "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ0mLq17"
    );
}

#[test]
fn keys_are_found_in_the_spellings_of_texts_within_texts() {
    let (chain, to) = (secrets(), to("evil.example.com", true));
    let mut random = Random(9);
    let id = format!("AKIA{}", random.of(Alphabet::Base32, 16));
    let body = random.of(Alphabet::Base64, 64);
    let body = format!("{body}\n{body}\n");
    for kind in ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "] {
        let pem =
            format!("-----BEGIN {kind}PRIVATE KEY-----\n{body}-----END {kind}PRIVATE KEY-----\n");
        let json = serde_json::to_string(&pem).unwrap();
        let twice = serde_json::to_string(&json).unwrap();
        for text in [pem.clone(), pem.replace('\n', "\r\n"), json, twice] {
            let finding = found(&chain, &to, &text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(finding.kind, "private-key");
        }
        let form: String = pem.bytes().map(|b| format!("%{b:02X}")).collect();
        let fields = [(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8",
        )];
        for cut in 0..form.len() {
            let pieces = [&form.as_bytes()[..cut], &form.as_bytes()[cut..]];
            let (out, _, finding) = carry(&chain, &fields, &to, &pieces);
            assert_eq!(finding.unwrap().kind, "private-key");
            assert!(out.len() <= 3 * "-----BEGIN".len());
        }
    }
    let fields = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF\n\n";
    assert!(found(&chain, &to, &format!("{fields}{body}")).is_some());
    for text in [
        format!("line\\n{id}\\n"),
        format!("\\u0022{id}\\u0022"),
        format!("key={id}&x"),
        format!("%3D{id}%26"),
        format!("({id})"),
    ] {
        assert_eq!(
            found(&chain, &to, &text).unwrap().kind,
            "aws-access-key-id",
            "{text}"
        );
    }
}

#[test]
fn a_head_is_looked_at_in_every_part() {
    let (chain, away) = (secrets(), to("evil.example.com", true));
    let id = format!("AKIA{}", Random(3).of(Alphabet::Base32, 16));
    let escaped: String = id.bytes().map(|b| format!("%{b:02x}")).collect();
    let head = |uri: &str, field: (&str, &str), to: &Destination| {
        let request = Request::builder().uri(uri).header(field.0, field.1);
        let (parts, ()) = request.body(()).unwrap().into_parts();
        chain.head(&parts, to, &mut Vec::new())
    };
    let none = ("x", "y");
    let bearer = format!("Bearer {id}");
    let cookie = format!("a=b; t={id}");
    for (uri, field, place) in [
        (format!("/a/{id}/b"), none, Field::Path),
        (format!("/a/{escaped}"), none, Field::Path),
        (format!("/a?k={id}"), none, Field::Query),
        (format!("/a?k={escaped}&l=m"), none, Field::Query),
        (
            "/".into(),
            ("authorization", bearer.as_str()),
            Field::Header("authorization".into()),
        ),
        (
            "/".into(),
            ("cookie", cookie.as_str()),
            Field::Header("cookie".into()),
        ),
        (
            "/".into(),
            ("x-any", id.as_str()),
            Field::Header("x-any".into()),
        ),
    ] {
        let finding = head(&uri, field, &away).unwrap_err();
        assert_eq!(
            (finding.kind, &finding.field),
            ("aws-access-key-id", &place)
        );
        let said = finding.to_string();
        assert!(!said.contains(&id), "{said}");
        assert_eq!(head(&uri, field, &to("s3.amazonaws.com", true)), Ok(()));
    }
    assert_eq!(head("/a?b=c", none, &away), Ok(()));
}

#[test]
fn what_stands_for_a_credential_is_no_finding() {
    let placeholder = format!("AKIA{}", Random(5).of(Alphabet::Base32, 16));
    let other = format!("AKIA{}", Random(6).of(Alphabet::Base32, 16));
    let levels = policy::Inspection::default();
    let chain = Arc::new(Chain::new(&levels, vec![placeholder.clone().into_bytes()]));
    let to = to("evil.example.com", true);
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(format!("x:{text}")));
    for text in [placeholder.clone(), basic(&placeholder)] {
        assert_eq!(found(&chain, &to, &text), None);
    }
    for text in [
        other.clone(),
        basic(&other),
        format!("{placeholder} {other}"),
    ] {
        assert!(found(&chain, &to, &text).is_some());
    }
}

#[test]
fn base64_is_looked_into_at_every_alignment_and_however_it_is_cut() {
    let chain = only(Some(Name::Base64), Level::Block, Base64);
    let to = to("evil.example.com", true);
    let id = format!("AKIA{}", Random(11).of(Alphabet::Base32, 16));
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n",
        Random(12).of(Alphabet::Base64, 64)
    );
    for secret in [&id, &pem] {
        for ahead in 0..5 {
            let inner = format!("{}{secret} and more that follows", "-".repeat(ahead));
            let plain = STANDARD.encode(&inner);
            let lines: Vec<String> = plain
                .as_bytes()
                .chunks(60)
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect();
            for text in [
                plain.clone(),
                URL_SAFE_NO_PAD.encode(&inner),
                format!("/upload/{plain}"),
                format!("data:text/plain;base64,{plain}"),
                lines.join("\r\n"),
                serde_json::to_string(&lines.join("\n")).unwrap(),
            ] {
                for cut in 0..text.len() {
                    let pieces = [&text.as_bytes()[..cut], &text.as_bytes()[cut..]];
                    let (_, _, finding) = carry(&chain, &[], &to, &pieces);
                    let finding = finding.unwrap_or_else(|| panic!("{text} cut at {cut}"));
                    assert_eq!(finding.code, "inspection-base64");
                }
            }
        }
    }
    assert_eq!(
        found(&chain, &to, &id),
        None,
        "as it is it is the other one's"
    );
    let picture = STANDARD.encode(
        (0..50_000u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect::<Vec<_>>(),
    );
    assert_eq!(found(&chain, &to, &picture), None);
}

#[test]
fn a_compressed_body_is_read_through_and_one_that_cannot_be_is_told_of() {
    let id = format!("AKIA{}", Random(13).of(Alphabet::Base32, 16));
    let plain = format!(
        "{} {id} {}",
        "many words ".repeat(5000),
        "more ".repeat(100)
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(plain.as_bytes()).unwrap();
    let zlib = zlib.finish().unwrap();
    let chain = Arc::new(Chain::new(&policy::Inspection::default(), Vec::new()));
    let to = to("evil.example.com", true);
    for (encoding, body) in [("gzip", &gzip), ("x-gzip", &gzip), ("deflate", &zlib)] {
        for size in [1, 7, 1000, 100_000] {
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            let (out, flags, finding) =
                carry(&chain, &[("content-encoding", encoding)], &to, &pieces);
            assert_eq!(finding.unwrap().kind, "aws-access-key-id", "{encoding}");
            assert!(out.len() < body.len() && flags.is_empty());
        }
    }
    // A key at the very end, of which nothing was decided before the end came.
    let mut gzip_end = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip_end
        .write_all(format!("{} {id}", "many words ".repeat(50)).as_bytes())
        .unwrap();
    let gzip_end = gzip_end.finish().unwrap();
    let (out, _, finding) = carry(&chain, &[("content-encoding", "gzip")], &to, &[&gzip_end]);
    assert_eq!((finding.unwrap().kind, out.len()), ("aws-access-key-id", 0));
    let harmless = |encoding: &str, body: &[u8]| {
        let (out, flags, finding) = carry(&chain, &[("content-encoding", encoding)], &to, &[body]);
        assert_eq!((out, finding), (body.to_vec(), None), "it passes as it is");
        flags.first().map(|flag| (flag.code, flag.kind))
    };
    let code = "inspection-encoding";
    let encoding = Some((code, Unread::Encoding.kind()));
    let broken = |body: &[u8]| {
        let finding = carry(&chain, &[("content-encoding", "gzip")], &to, &[body]).2;
        finding.map(|finding| (finding.code, finding.kind, finding.level))
    };
    for name in ["br", "zstd", "gzip, gzip", "gzip, br"] {
        assert_eq!(harmless(name, b"what it may be"), encoding);
    }
    assert_eq!(harmless("identity", b"plain"), None);
    assert_eq!(harmless("gzip", b""), None);
    // One that lies is blocked where anything is.
    let lie = Some((code, Unread::Broken.kind(), Level::Block));
    assert_eq!(broken(b"plain"), lie);
    assert_eq!(broken(&gzip[..100]), lie);
}

#[test]
fn what_one_compressed_body_stands_for_is_bounded() {
    let bounded = |bytes: usize| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b'x'; bytes]).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", "gzip".parse().unwrap());
        let View::Inflate(inflate) = View::of(&headers, None).unwrap() else {
            panic!("not read");
        };
        let mut inflate = inflate.bounded(100_000);
        gzip.chunks(limits::INFLATE)
            .try_for_each(|piece| inflate.push(piece).map(drop))
    };
    assert_eq!(bounded(100_000), Ok(()));
    assert_eq!(bounded(100_001), Err(Unread::TooMuch));
}

#[test]
fn a_body_that_is_not_what_its_head_says_is_told_of() {
    let chain = only(Some(Name::ContentType), Level::Flag, ContentType);
    let to = to("evil.example.com", true);
    let kinds = |media: &str, body: &[u8]| {
        let mut all = Vec::new();
        for cut in 0..=body.len().min(20) {
            let fields = [("content-type", media)];
            let (out, flags, finding) = carry(&chain, &fields, &to, &[&body[..cut], &body[cut..]]);
            assert_eq!((out.as_slice(), finding), (body, None));
            all.push(flags.first().map(|flag| flag.kind));
        }
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]
    };
    let png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00";
    let elf = b"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00";
    assert_eq!(kinds("application/json", png), Some("PNG"));
    assert_eq!(
        kinds("application/json; charset=utf-8", elf),
        Some("an ELF program")
    );
    assert_eq!(kinds("image/png", elf), Some("an ELF program"));
    assert_eq!(
        kinds("image/png", b"{\"a\": \"this is no image\"}"),
        Some("no image of its type")
    );
    assert_eq!(
        kinds(
            "text/plain",
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        ),
        Some("gzip")
    );
    assert_eq!(kinds("image/png", png), None);
    assert_eq!(kinds("application/octet-stream", elf), None);
    assert_eq!(kinds("application/json", b"{\"a\": 1}"), None);
    assert_eq!(kinds("application/json", b""), None);
    assert_eq!(
        kinds(
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            b"PK\x03\x04rest of the document"
        ),
        None
    );
}

#[test]
fn words_that_look_random_are_told_of_and_names_digests_and_ids_are_not() {
    let chain = only(Some(Name::Entropy), Level::Flag, Entropy);
    let to = to("evil.example.com", true);
    let flagged = |text: &str| !carry(&chain, &[], &to, &[text.as_bytes()]).1.is_empty();
    let mut random = Random(17);
    let hits = (0..200)
        .filter(|_| {
            flagged(&format!(
                "{{\"k\": \"{}\"}}",
                random.of(Alphabet::Alnum, 40)
            ))
        })
        .count();
    assert!(hits > 180, "{hits}");
    let word = std::iter::repeat_with(|| random.of(Alphabet::Alnum, 40))
        .find(|word| flagged(word))
        .unwrap();
    for cut in 0..word.len() {
        let pieces = [&word.as_bytes()[..cut], &word.as_bytes()[cut..]];
        assert_eq!(carry(&chain, &[], &to, &pieces).1.len(), 1);
    }
    for text in [
        "the_quick_brown_fox_jumps_over_the_lazy_dog".to_owned(),
        "getElementsByTagNameAndClassNameV2".to_owned(),
        "node_modules/some-package/dist/index2.esm.js".to_owned(),
        random.of(Alphabet::Hex, 40),
        "123e4567-e89b-12d3-a456-426614174000".to_owned(),
        format!("sha512-{}", random.of(Alphabet::Alnum, 86)),
        random.of(Alphabet::Alnum, 10_000),
    ] {
        assert!(!flagged(&text), "{text}");
    }
}

#[test]
fn an_inspector_that_fails_blocks_whatever_its_level() {
    struct Fails;
    impl Inspector for Fails {
        fn code(&self) -> &'static str {
            "custom"
        }
        fn look(&self, _: &Text<'_>) -> Look {
            panic!("as it happens");
        }
    }
    let to = to("evil.example.com", true);
    for level in [Level::Flag, Level::Block] {
        let chain = only(None, level, Fails);
        let finding = found(&chain, &to, "harmless").unwrap();
        assert_eq!(
            (finding.code, finding.level),
            ("inspection-failed", Level::Block)
        );
        let (parts, ()) = Request::new(()).into_parts();
        assert!(chain.head(&parts, &to, &mut Vec::new()).is_err());
    }
    assert_eq!(found(&only(None, Level::Off, Fails), &to, "harmless"), None);
}

#[test]
fn the_first_that_blocks_ends_it_and_what_flags_tells_once() {
    let id = format!("AKIA{}", Random(19).of(Alphabet::Base32, 16));
    let text = format!("{id} {id} {}", Random(20).of(Alphabet::Alnum, 40));
    let to = to("evil.example.com", true);
    let both = |level| {
        let chain = Chain::default()
            .with(Some(Name::Secrets), level, Arc::new(Secrets))
            .with(Some(Name::Entropy), Level::Flag, Arc::new(Entropy));
        let (out, flags, finding) = carry(&Arc::new(chain), &[], &to, &[text.as_bytes()]);
        (out.len(), flags.len(), finding.is_some())
    };
    assert_eq!(both(Level::Flag), (text.len(), 2, false));
    assert_eq!(both(Level::Block), (0, 0, true));
}
