//! The names of what a body holds, where servers take parameters from it: forms as they are written in a URL, forms in parts,
//! and JSON. Read as the body passes, however it is cut, to tell a parameter that is another method to the server; values are
//! not kept. Memory is one name a body. Used by `http::meaning`; fuzzed as `form_names`.

use hyper::header::{self, HeaderMap};

use crate::limits;
use crate::percent;

/// Reads names where the head says, or leaves open, that there are some.
pub struct Names {
    pairs: Option<Pairs>,
    parts: Option<Parts>,
    json: Option<Json>,
}

impl Names {
    /// A body may have several types to several readers, and one without any is a form to some.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let types = headers.get_all(header::CONTENT_TYPE).iter();
        let types: Vec<Vec<u8>> = types
            .map(|value| value.as_bytes().to_ascii_lowercase())
            .collect();
        let says = |what: &[u8]| {
            let mut types = types.iter();
            types.any(|one| one.windows(what.len()).any(|part| part == what))
        };
        let pairs = types.is_empty() || says(b"x-www-form-urlencoded");
        let (parts, json) = (says(b"multipart/"), says(b"json"));
        (pairs || parts || json).then(|| Self {
            pairs: pairs.then(Pairs::default),
            parts: parts.then(Parts::default),
            json: json.then(Json::default),
        })
    }

    /// Takes the next piece. Whether a name in it is one of those that are looked for, or is written at such a length that nobody
    /// can say.
    pub fn push(&mut self, piece: &[u8], is: fn(&[u8]) -> bool) -> bool {
        self.pairs.as_mut().is_some_and(|it| it.push(piece, is))
            || self.parts.as_mut().is_some_and(|it| it.push(piece, is))
            || self.json.as_mut().is_some_and(|it| it.push(piece, is))
    }
}

/// `name=value&name=value` (WHATWG URL, 5.1), `;` between them as some read it. A name without a value says nothing.
#[derive(Default)]
struct Pairs {
    name: Vec<u8>,
    in_value: bool,
}

impl Pairs {
    fn push(&mut self, piece: &[u8], is: fn(&[u8]) -> bool) -> bool {
        for &b in piece {
            match b {
                b'&' | b';' => {
                    self.name.clear();
                    self.in_value = false;
                }
                _ if self.in_value => {}
                b'=' => {
                    self.in_value = true;
                    if is(&percent::decoded(&self.name)) {
                        return true;
                    }
                }
                // Blanks ahead of a name are left out by some, however many there are.
                b'+' | b' ' if self.name.is_empty() => {}
                // What is longer is none that is looked for.
                _ if self.name.len() == limits::FORM_NAME => self.in_value = true,
                b'+' => self.name.push(b' '),
                _ => self.name.push(b),
            }
            if self.name.ends_with(b"%20") && self.name.len() == b"%20".len() {
                self.name.clear();
            }
        }
        false
    }
}

/// Parts, each of whose heads has its name (RFC 7578, 4.2). Boundaries are not read: a line that begins as one of such a head
/// counts as one, wherever it stands.
#[derive(Default)]
struct Parts {
    line: Vec<u8>,
    ended: bool,
    /// It is no line of that kind.
    other: bool,
}

const DISPOSITION: &[u8] = b"content-disposition";

impl Parts {
    fn push(&mut self, piece: &[u8], is: fn(&[u8]) -> bool) -> bool {
        for &b in piece {
            if b == b'\r' || b == b'\n' {
                if !self.ended && !self.other && named(&self.line).iter().any(|name| is(name)) {
                    return true;
                }
                self.ended = true;
                continue;
            }
            // A blank at its beginning makes a line part of the one before (RFC 5322, 2.2.3).
            if std::mem::take(&mut self.ended) && b != b' ' && b != b'\t' {
                self.line.clear();
                self.other = false;
            }
            if self.other {
                continue;
            }
            self.line.push(b.to_ascii_lowercase());
            let head = self.line.len().min(DISPOSITION.len());
            if self.line[..head] != DISPOSITION[..head] {
                self.other = true;
            } else if self.line.len() > limits::FORM_LINE {
                return true;
            }
        }
        false
    }
}

/// Every `name` of such a line, in lower case.
fn named(line: &[u8]) -> Vec<Vec<u8>> {
    const NAME: &[u8] = b"name";
    let mut names = Vec::new();
    for at in 0..line.len() {
        let before = at.checked_sub(1).map_or(b' ', |at| line[at]);
        let Some(rest) = line[at..].strip_prefix(NAME) else {
            continue;
        };
        if before.is_ascii_alphanumeric() {
            continue;
        }
        // The form of RFC 8187 has its character set ahead of it.
        let (rest, extended) = match rest.strip_prefix(b"*") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let Some(value) = rest.trim_ascii_start().strip_prefix(b"=") else {
            continue;
        };
        let value = value.trim_ascii_start();
        let mut name = Vec::new();
        if let Some(quoted) = value.strip_prefix(b"\"") {
            let mut escaped = false;
            for &b in quoted {
                match b {
                    b'\\' if !escaped => escaped = true,
                    b'"' if !escaped => break,
                    _ => {
                        escaped = false;
                        name.push(b);
                    }
                }
            }
        } else {
            let token = value.split(|&b| b == b';' || b.is_ascii_whitespace());
            name.extend_from_slice(token.into_iter().next().unwrap_or_default());
        }
        let name = match name.iter().rposition(|&b| b == b'\'') {
            Some(quote) if extended => name[quote + 1..].to_vec(),
            _ => name,
        };
        names.push(percent::decoded(&name));
    }
    names
}

/// Names of an object that is not within another thing (RFC 8259).
#[derive(Default)]
struct Json {
    depth: u64,
    /// What is not within another thing is an object, no list.
    object: bool,
    /// What is open within quotes, where it may be a name; it is as it is written.
    name: Option<Vec<u8>>,
    in_string: bool,
    escaped: bool,
    /// A name may begin here.
    expects: bool,
}

impl Json {
    fn push(&mut self, piece: &[u8], is: fn(&[u8]) -> bool) -> bool {
        piece.iter().any(|&b| self.byte(b, is))
    }

    fn byte(&mut self, b: u8, is: fn(&[u8]) -> bool) -> bool {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if b == b'\\' {
                self.escaped = true;
            } else if b == b'"' {
                self.in_string = false;
                let name = self.name.take();
                return name.is_some_and(|name| is(&unescaped(name)));
            }
            match &mut self.name {
                // What is longer is none that is looked for.
                Some(name) if name.len() == limits::FORM_NAME => self.name = None,
                Some(name) => name.push(b),
                None => {}
            }
            return false;
        }
        match b {
            b'"' => {
                self.in_string = true;
                self.name = std::mem::take(&mut self.expects).then(Vec::new);
            }
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth == 1 {
                    self.object = b == b'{';
                }
                self.expects = self.depth == 1 && self.object;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.expects = false;
            }
            b',' => self.expects = self.depth == 1 && self.object,
            b':' => self.expects = false,
            _ => {}
        }
        false
    }
}

fn unescaped(name: Vec<u8>) -> Vec<u8> {
    if !name.contains(&b'\\') {
        return name;
    }
    let quoted = [b"\"", name.as_slice(), b"\""].concat();
    let text = serde_json::from_slice::<String>(&quoted);
    text.map_or(name, String::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn is(name: &[u8]) -> bool {
        name == b"_method"
    }

    /// However it is cut.
    fn told(types: &[&'static str], body: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        for one in types {
            headers.append(header::CONTENT_TYPE, HeaderValue::from_static(one));
        }
        let tell = |size: usize| {
            let mut names = Names::of(&headers);
            let mut pieces = body.chunks(size);
            pieces.any(|piece| names.as_mut().is_some_and(|names| names.push(piece, is)))
        };
        let whole = tell(body.len().max(1));
        for size in 1..12 {
            assert_eq!(tell(size), whole, "{size}: {}", body.escape_ascii());
        }
        whole
    }

    const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
    const PARTS: &str = "Multipart/Form-Data; boundary=b";
    const JSON: &str = "application/vnd.api+json";

    #[test]
    fn names_of_pairs_are_told_and_values_are_not() {
        for body in [
            "_method=DELETE",
            "a=b&_method=x",
            "a=b;_method=x",
            "a&%5fm%65thod=x",
            "+%20+_method=x",
        ] {
            assert!(told(&[FORM], body.as_bytes()), "{body}");
            assert!(told(&[], body.as_bytes()), "{body}");
            assert!(told(&["text/plain", FORM], body.as_bytes()), "{body}");
            assert!(!told(&["text/plain"], body.as_bytes()), "{body}");
        }
        for body in [
            "a=_method=x",
            "a=b=_method",
            "_methods=x",
            "x_method=x",
            "_method",
            "{\"a\":\"_method=\"}",
        ] {
            assert!(!told(&[FORM], body.as_bytes()), "{body}");
        }
        let long = |blanks: usize| format!("{}_method=x", "+".repeat(blanks));
        assert!(told(&[FORM], long(limits::FORM_NAME * 4).as_bytes()));
        let long = |more: usize| format!("{}=x&_method=x", "n".repeat(limits::FORM_NAME + more));
        assert!(told(&[FORM], long(0).as_bytes()) && told(&[FORM], long(1).as_bytes()));
        let behind = format!("{}&_method", "n".repeat(limits::FORM_NAME));
        assert!(!told(&[FORM], behind.as_bytes()));
    }

    #[test]
    fn names_of_parts_are_told_where_their_heads_have_them() {
        let part = |line: &str| format!("--b\r\n{line}\r\n\r\nDELETE\r\n--b--\r\n");
        for line in [
            "Content-Disposition: form-data; name=\"_method\"",
            "content-disposition:form-data;name=_method",
            "Content-Disposition: form-data; name=\"_m\\ethod\"; filename=\"x\"",
            "Content-Disposition: form-data;\r\n name=\"_method\"",
            "Content-Disposition: form-data; filename=a; NAME = \"%5Fmethod\"",
            "Content-Disposition: form-data; name*=utf-8''_method",
        ] {
            assert!(told(&[PARTS], part(line).as_bytes()), "{line}");
            assert!(
                told(&[PARTS], part(line).replace('\r', "").as_bytes()),
                "{line}"
            );
            assert!(!told(&[FORM], part(line).as_bytes()), "{line}");
        }
        for line in [
            "Content-Disposition: form-data; name=\"method\"",
            "Content-Disposition: form-data; filename=\"_method\"",
            "<input name=\"_method\">",
            "X: y\r\n name=\"_method\"",
        ] {
            assert!(!told(&[PARTS], part(line).as_bytes()), "{line}");
        }
        let head = "Content-Disposition: form-data; name=x; filename=";
        let long = |length: usize| part(&format!("{head}{}", "f".repeat(length - head.len())));
        assert!(!told(&[PARTS], long(limits::FORM_LINE).as_bytes()));
        assert!(told(&[PARTS], long(limits::FORM_LINE + 1).as_bytes()));
    }

    #[test]
    fn names_of_an_object_are_told_and_what_is_within_it_is_not() {
        for body in [
            r#"{"_method":"DELETE"}"#,
            r#" {"a":{"b":[1]},"_method" : "x"}"#,
            r#"{"a":"\"}","\u005fmethod":"x"}"#,
            r#"{}{"_method":1}"#,
        ] {
            assert!(told(&[JSON], body.as_bytes()), "{body}");
            assert!(!told(&["text/plain"], body.as_bytes()), "{body}");
        }
        for body in [
            r#"{"a":"_method"}"#,
            r#"{"a":{"_method":"x"}}"#,
            r#"["a","_method"]"#,
            r#"[{"_method":"x"}]"#,
            r#"{"a":"\"_method\":"}"#,
        ] {
            assert!(!told(&[JSON], body.as_bytes()), "{body}");
        }
        let long = |length: usize| format!(r#"{{"{}":1,"_method":2}}"#, "n".repeat(length));
        assert!(told(&[JSON], long(limits::FORM_NAME).as_bytes()));
        assert!(told(&[JSON], long(limits::FORM_NAME + 1).as_bytes()));
    }
}
