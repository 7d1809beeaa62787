#![allow(clippy::unwrap_used)]
use super::*;

/// The example of RFC 6455, 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn key() -> Key {
    Key::parse(KEY.as_bytes()).unwrap()
}

fn check(headers: &HeaderMap) -> Result<(), Mismatch> {
    key().check(Version::HTTP_11, headers)
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_key_is_sixteen_bytes_in_base64() {
    assert_eq!(key().accept(), ACCEPT);
    for bad in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNhbXBsZSBub25j",
        "dGhlIHNhbXBsZSBub25jZWQ=",
        "dGhlIHNhbXBsZSBub25jZWVl",
        "dGhlIHNhbXBsZSBub25jZQ== ",
        "dGhlIHNhbXBsZSBub25j-Q==",
        "dGhl IHNhbXBsZSBub25jZQ==",
    ] {
        assert_eq!(Key::parse(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn a_101_has_to_be_for_websocket_and_for_this_key() {
    let good = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-accept", ACCEPT),
    ];
    assert_eq!(check(&headers(&good)), Ok(()));
    let old = key().check(Version::HTTP_10, &headers(&good));
    assert_eq!(old, Err(Mismatch::Protocol));
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (at, value, mismatch) in [
        (0, "keep-alive", Mismatch::Protocol),
        (0, "xupgrade", Mismatch::Protocol),
        (1, "h2c", Mismatch::Protocol),
        (1, "websocket, h2c", Mismatch::Protocol),
        (2, other, Mismatch::Accept),
        (2, "", Mismatch::Accept),
        (2, "S3PPLMBITXAQ9KYGZZHZRBK+XOO=", Mismatch::Accept),
    ] {
        let mut bad = good;
        bad[at].1 = value;
        assert_eq!(check(&headers(&bad)), Err(mismatch), "{bad:?}");
    }
    for missing in 0..3 {
        let mut lines = good.to_vec();
        lines.remove(missing);
        assert!(check(&headers(&lines)).is_err(), "{lines:?}");
    }
    for twice in [1, 2] {
        let mut lines = good.to_vec();
        lines.push(good[twice]);
        assert!(check(&headers(&lines)).is_err(), "{lines:?}");
    }
}
