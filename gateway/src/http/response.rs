//! What an upstream's head says about its body, read strictly as requests are: a response whose end two parsers could
//! find in two places is not passed on (RFC 9112, 6.3; escape-attempts D14). Called by `http::forward`.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{StatusCode, Version};

use super::head::content_length;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    #[error("the upstream's response has a length and is chunked as well")]
    Both,
    #[error("the upstream's response has a Content-Length that is not one number")]
    Length,
    #[error("the upstream's response has a Transfer-Encoding other than chunked")]
    Encoding,
    #[error("the upstream's response announces a body where there can be none")]
    Body,
}

/// Checks how the body's end is to be found, and leaves the length in its one spelling.
pub fn frame(
    status: StatusCode,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<(), Ambiguous> {
    let chunked = {
        let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
        match (encodings.next(), encodings.next()) {
            (None, _) => false,
            (Some(one), None) => {
                if version < Version::HTTP_11 || !one.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err(Ambiguous::Encoding);
                }
                true
            }
            (Some(_), Some(_)) => return Err(Ambiguous::Encoding),
        }
    };
    let length = {
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        match (lengths.next(), lengths.next()) {
            (None, _) => None,
            (Some(one), None) => {
                Some(content_length(one.as_bytes().trim_ascii()).ok_or(Ambiguous::Length)?)
            }
            (Some(_), Some(_)) => return Err(Ambiguous::Length),
        }
    };
    match length {
        Some(_) if chunked => return Err(Ambiguous::Both),
        Some(length) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        None => {}
    }
    if status == StatusCode::NO_CONTENT {
        if chunked || length.is_some_and(|length| length > 0) {
            return Err(Ambiguous::Body);
        }
        headers.remove(header::CONTENT_LENGTH);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hyper::header::HeaderName;

    use super::*;

    fn framed(status: u16, version: Version, lines: &[(&str, &str)]) -> Result<String, Ambiguous> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        frame(StatusCode::from_u16(status).unwrap(), version, &mut headers)?;
        let length = headers.get(header::CONTENT_LENGTH);
        Ok(length.map_or(String::new(), |length| length.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_response_has_one_end() {
        let (cl, te, now) = ("content-length", "transfer-encoding", Version::HTTP_11);
        for (lines, length) in [
            (&[][..], ""),
            (&[(cl, "5")], "5"),
            (&[(cl, "005")], "5"),
            (&[(te, "Chunked")], ""),
        ] {
            assert_eq!(framed(200, now, lines), Ok(length.to_owned()), "{lines:?}");
        }
        assert_eq!(framed(304, now, &[(cl, "5")]), Ok("5".to_owned()));
        assert_eq!(framed(204, now, &[(cl, "0")]), Ok(String::new()));
        for (lines, why) in [
            (&[(cl, "5"), (te, "chunked")][..], Ambiguous::Both),
            (&[(cl, "5"), (cl, "5")], Ambiguous::Length),
            (&[(cl, "5, 5")], Ambiguous::Length),
            (&[(cl, "+5")], Ambiguous::Length),
            (&[(cl, "-1")], Ambiguous::Length),
            (&[(cl, "")], Ambiguous::Length),
            (&[(cl, "1000000000000000000")], Ambiguous::Length),
            (&[(te, "gzip, chunked")], Ambiguous::Encoding),
            (&[(te, "identity")], Ambiguous::Encoding),
            (&[(te, "chunked"), (te, "chunked")], Ambiguous::Encoding),
        ] {
            assert_eq!(framed(200, now, lines), Err(why), "{lines:?}");
        }
        let old = framed(200, Version::HTTP_10, &[(te, "chunked")]);
        assert_eq!(old, Err(Ambiguous::Encoding));
        for lines in [&[(cl, "1")][..], &[(te, "chunked")]] {
            assert_eq!(framed(204, now, lines), Err(Ambiguous::Body));
        }
    }
}
