//! Parameters that are another method to a server, in what servers take parameters from: forms as they are written in a URL,
//! forms in parts, and JSON. Read as the body passes, however it is cut; values are not kept. What several servers read in several
//! ways is told where one of them would take it; where a head leaves open how a body is read, nobody can say. Memory is one name, or the head
//! of one part, a body. Used by `http::meaning`; fuzzed as `form_names`.

use hyper::header::{self, HeaderMap};

use crate::limits;
use crate::percent;

/// Rails and its kin; Google's APIs (system parameters); Salesforce's; ASP.NET's. In lower case.
const OTHER_METHOD: [&[u8]; 6] = [
    b"_method",
    b"$httpmethod",
    b"_httpmethod",
    b"x-http-method-override",
    b"x-http-method",
    b"x-method-override",
];

/// Reads names where the head says, or leaves open, that there are some.
#[derive(Clone)]
pub struct Names {
    pairs: Option<Pairs>,
    parts: Option<Parts>,
    json: Option<Json>,
    /// A zero is part of a wider character.
    no_zeros: bool,
}

/// A head says that a body has names, and not in one way how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear;

impl Names {
    /// A body may have several types to several readers, and one without any is a form to some.
    ///
    /// # Errors
    /// A set of characters in which names may be written in another way, or parts without one plain boundary.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Unclear> {
        let types = headers.get_all(header::CONTENT_TYPE).iter();
        let types: Vec<&[u8]> = types.map(|value| value.as_bytes().trim_ascii()).collect();
        let types = types.join(&b"\n"[..]);
        let lower = types.to_ascii_lowercase();
        let says = |what: &[u8]| find(&lower, what).is_some();
        let json = says(b"json");
        let names = Self {
            pairs: (lower.trim_ascii().is_empty() || says(b"x-www-form-urlencoded"))
                .then(Pairs::default),
            parts: match says(b"multipart/") {
                true => Some(Parts::within(boundary(&types, &lower)?)),
                false => None,
            },
            // Some take JSON from what calls itself a text.
            json: (json || says(b"text/plain")).then(Json::default),
            // Messages of a stream have their lengths between them.
            no_zeros: json && !says(b"grpc") && !says(b"connect"),
        };
        if names.pairs.is_none() && names.parts.is_none() && names.json.is_none() {
            return Ok(None);
        }
        let mut rest = lower.as_slice();
        while let Some(at) = find(rest, b"charset") {
            rest = &rest[at + b"charset".len()..];
            if !is_ascii_like(rest) {
                return Err(Unclear);
            }
        }
        Ok(Some(names))
    }

    /// Takes the next piece. Whether a name in it is another method, or is written at such a length that nobody can say.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        self.no_zeros && piece.contains(&0)
            || self.pairs.as_mut().is_some_and(|it| it.push(piece))
            || self.parts.as_mut().is_some_and(|it| it.push(piece))
            || self.json.as_mut().is_some_and(|it| it.push(piece))
    }
}

/// Whether a parameter of that name, which is decoded, is another method to some servers.
pub fn is_other_method(name: &[u8]) -> bool {
    spellings(name)
        .iter()
        .any(|name| OTHER_METHOD.contains(&name.as_slice()))
}

/// The same of one that goes on.
fn may_be_other_method(begun: &[u8]) -> bool {
    let name = begun.trim_ascii_start();
    let bare = name
        .iter()
        .position(|b| !is_blank(*b) && !b"[]".contains(b));
    let Some(bare) = bare.map(|at| &name[at..]) else {
        return true;
    };
    [spelt_by_php(name), bare.to_ascii_lowercase()]
        .iter()
        .any(|name| {
            OTHER_METHOD.iter().any(|other| {
                let rest = name.strip_prefix(*other);
                rest.is_some_and(|rest| matches!(rest.first(), None | Some(0 | b']' | b'[')))
            })
        })
}

/// What servers make of a name, in lower case.
fn spellings(name: &[u8]) -> [Vec<u8>; 2] {
    // To PHP it ends at a zero.
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    let brackets = |b: &u8| b"[]".contains(b);
    let start = name.iter().position(|b| !brackets(b) && !is_blank(*b));
    let bare = start.map_or(&[][..], |at| &name[at..]);
    let end = bare.iter().rposition(|b| !brackets(b));
    let bare = end.map_or(&[][..], |at| &bare[..=at]);
    [spelt_by_php(name), bare.to_ascii_lowercase()]
}

/// Blanks ahead of it are left out, and a blank, a dot or an open bracket in it is a `_`.
fn spelt_by_php(name: &[u8]) -> Vec<u8> {
    let start = name.iter().position(|&b| !is_blank(b));
    let name = start.map_or(&[][..], |at| &name[at..]);
    name.iter()
        .map(|b| {
            if b" .[".contains(b) {
                b'_'
            } else {
                b.to_ascii_lowercase()
            }
        })
        .collect()
}

/// isspace(3).
fn is_blank(b: u8) -> bool {
    b.is_ascii_whitespace() || b == 0x0b
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

/// Whether names in the set of characters that a parameter begins with, behind its name, are what they are in ASCII.
fn is_ascii_like(parameter: &[u8]) -> bool {
    let value = parameter.trim_ascii_start().strip_prefix(b"=");
    let Some(value) = value.map(<[u8]>::trim_ascii_start) else {
        return false;
    };
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let ends = |b: &u8| b"\";,".contains(b) || is_blank(*b);
    let value = value.split(ends).next().unwrap_or_default();
    [&b"utf-8"[..], b"utf8", b"us-ascii", b"ascii", b"latin1"].contains(&value)
        || [&b"iso-8859-"[..], b"windows-125"]
            .iter()
            .any(|family| value.starts_with(family))
}

/// The one boundary that is named, in characters that nobody reads in two ways.
fn boundary<'a>(types: &'a [u8], lower: &[u8]) -> Result<&'a [u8], Unclear> {
    const NAME: &[u8] = b"boundary";
    let at = find(lower, NAME).ok_or(Unclear)? + NAME.len();
    if find(&lower[at..], NAME).is_some() {
        return Err(Unclear);
    }
    let value = types[at..].strip_prefix(b"=").ok_or(Unclear)?;
    let value = value.strip_prefix(b"\"").unwrap_or(value);
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.+=:/?".contains(b);
    let length = value.iter().position(|b| !plain(b)).unwrap_or(value.len());
    let (value, rest) = value.split_at(length);
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest).trim_ascii_start();
    // RFC 2046, 5.1.1.
    if (1..=70).contains(&length) && matches!(rest.first(), None | Some(b';')) {
        Ok(value)
    } else {
        Err(Unclear)
    }
}

/// `name=value&name=value` (WHATWG URL, 5.1), `;` between them as some read it. A name without a value says nothing.
#[derive(Clone, Default)]
struct Pairs {
    name: Vec<u8>,
    in_value: bool,
}

impl Pairs {
    fn push(&mut self, piece: &[u8]) -> bool {
        for &b in piece {
            match b {
                b'&' | b';' => {
                    // Who does not end it here reads on to its value.
                    let cut = !self.in_value && percent::decoded(&self.name).contains(&0);
                    if cut && b == b';' && is_other_method(&percent::decoded(&self.name)) {
                        return true;
                    }
                    self.name.clear();
                    self.in_value = false;
                }
                _ if self.in_value => {}
                b'=' => {
                    self.in_value = true;
                    if is_other_method(&percent::decoded(&self.name)) {
                        return true;
                    }
                }
                _ if self.name.len() == limits::FORM_NAME => {
                    self.in_value = true;
                    if may_be_other_method(&percent::decoded(&self.name)) {
                        return true;
                    }
                }
                b'+' => self.name.push(b' '),
                _ => self.name.push(b),
            }
        }
        false
    }
}

/// Parts, each of whose heads has its name (RFC 7578, 4.2). A head is what follows the boundary, wherever that stands, up to
/// an empty line.
#[derive(Clone)]
struct Parts {
    /// The boundary, with the hyphens before it.
    delimiter: Vec<u8>,
    /// The last of what came: one may have begun in it.
    tail: Vec<u8>,
    head: Option<Vec<u8>>,
    /// Empty lines in it at which some say that it is over.
    ends: usize,
}

impl Parts {
    fn within(boundary: &[u8]) -> Self {
        Self {
            delimiter: [b"--", boundary].concat(),
            tail: Vec::new(),
            head: None,
            ends: 0,
        }
    }

    fn push(&mut self, mut piece: &[u8]) -> bool {
        while !piece.is_empty() {
            let Some(head) = &mut self.head else {
                let before = self.tail.len();
                self.tail.extend_from_slice(piece);
                if let Some(at) = find(&self.tail, &self.delimiter) {
                    piece = &piece[at + self.delimiter.len() - before..];
                    self.tail.clear();
                    self.head = Some(Vec::new());
                    self.ends = 0;
                } else {
                    let kept = self.tail.len().min(self.delimiter.len() - 1);
                    self.tail.drain(..self.tail.len() - kept);
                    piece = &[];
                }
                continue;
            };
            let (&b, rest) = (&piece[0], &piece[1..]);
            if head.len() == limits::FORM_HEAD {
                return true;
            }
            head.push(b.to_ascii_lowercase());
            piece = rest;
            // Some take other lines for empty ones: it is over for them, and goes on for others.
            let over = head.ends_with(b"\r\n\r\n");
            let ends: [&[u8]; 3] = [b"\n\n", b"\n\r\n", b"\r\r"];
            if ends.iter().any(|end| head.ends_with(end)) {
                self.ends += 1;
                if self.ends > limits::FORM_ENDS || tells(head) {
                    return true;
                }
            }
            if over {
                self.head = None;
            }
        }
        false
    }
}

/// Whether any name in a part's head is another method: in whichever field and parameter it stands, in whichever quotes.
fn tells(head: &[u8]) -> bool {
    let digits = |rest: &[u8]| rest.first().is_some_and(u8::is_ascii_digit);
    let mut continued = memchr::memmem::find_iter(head, b"name*");
    if find(head, b"=?").is_some() || continued.any(|at| digits(&head[at + 5..])) {
        // RFC 2047, RFC 2231, 3: written in a way of letters, or in pieces.
        return true;
    }
    let plain: Vec<u8> = head.iter().copied().filter(|&b| b != b'\\').collect();
    let plain = percent::decoded(&plain).to_ascii_lowercase();
    let to_php = |b: &u8| if b".[".contains(b) { b'_' } else { *b };
    let by_php: Vec<u8> = plain.iter().map(to_php).collect();
    let part = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || b"_-.".contains(b));
    [plain, by_php].iter().any(|head| {
        OTHER_METHOD.iter().any(|name| {
            memchr::memmem::find_iter(head, name).any(|at| {
                let before = at.checked_sub(1).and_then(|at| head.get(at));
                !part(before) && !part(head.get(at + name.len()))
            })
        })
    })
}

/// Names of an object that is not within another thing (RFC 8259).
#[derive(Clone, Default)]
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
    fn push(&mut self, piece: &[u8]) -> bool {
        piece.iter().any(|&b| self.byte(b))
    }

    fn byte(&mut self, b: u8) -> bool {
        if self.in_string {
            if self.escaped {
                self.escaped = false;
            } else if b == b'\\' {
                self.escaped = true;
            } else if b == b'"' {
                self.in_string = false;
                let name = self.name.take();
                return name.is_some_and(|name| is_other_method(&unescaped(name)));
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
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(types: &[&str]) -> HeaderMap {
        let types = types.iter();
        HeaderMap::from_iter(
            types.map(|one| (header::CONTENT_TYPE, one.parse::<HeaderValue>().unwrap())),
        )
    }

    /// However it is cut.
    fn told(types: &[&str], body: &[u8]) -> bool {
        let headers = headers(types);
        let tell = |size: usize| {
            let mut names = Names::of(&headers).unwrap();
            let mut pieces = body.chunks(size);
            pieces.any(|piece| names.as_mut().is_some_and(|names| names.push(piece)))
        };
        let whole = tell(body.len().max(1));
        for size in 1..12 {
            assert_eq!(tell(size), whole, "{size}: {}", body.escape_ascii());
        }
        whole
    }

    const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";
    const PARTS: &str = "Multipart/Form-Data; boundary=\"b\"; charset=utf-8";
    const JSON: &str = "application/vnd.api+json";

    #[test]
    fn names_of_pairs_are_told_and_values_are_not() {
        for body in [
            "_method=DELETE",
            "a=b&_Method=x",
            "a=b;_method=x",
            "a&%5fm%65thod=x",
            "+%20%09_method=x",
            ".method=x",
            "[_method]=x",
            "]%5B_method]]=x",
            "_method%00x=x",
            "_method%00;x=x",
            "a=b&X-HTTP-Method-Override=PUT",
            "$httpMethod=x",
            "X%u002dHTTP-Method-Override=x",
        ] {
            assert!(told(&[FORM], body.as_bytes()), "{body}");
            assert!(
                told(&[], body.as_bytes()) && told(&[""], body.as_bytes()),
                "{body}"
            );
            assert!(told(&["image/png", FORM], body.as_bytes()), "{body}");
            assert!(!told(&["image/png"], body.as_bytes()), "{body}");
        }
        for body in [
            "a=_method=x",
            "a=b=_method",
            "_methods=x",
            "x_method=x",
            "a[_method]=x",
            "_method",
            "_method;x=x",
            "{\"a\":\"_method=\"}",
        ] {
            assert!(!told(&[FORM], body.as_bytes()), "{body}");
        }
        let most = limits::FORM_NAME;
        for (fill, name, telling) in [
            ("+", "_method", true),
            ("]", "_method", true),
            ("n", "", false),
        ] {
            for length in [most, most + 1] {
                let body = format!("{}{name}=x", fill.repeat(length));
                assert_eq!(told(&[FORM], body.as_bytes()), telling, "{body}");
            }
        }
        let behind = |length: usize| format!("_method{}=x", "]".repeat(length - 7));
        assert!(
            told(&[FORM], behind(most).as_bytes()) && told(&[FORM], behind(most + 1).as_bytes())
        );
        let next = |length: usize| format!("{}=x&_method=x", "n".repeat(length));
        assert!(told(&[FORM], next(most).as_bytes()) && told(&[FORM], next(most + 1).as_bytes()));
    }

    #[test]
    fn names_of_parts_are_told_where_their_heads_have_them() {
        let part = |line: &str| format!("before\r\n--b\r\n{line}\r\n\r\nDELETE\r\n--b--\r\n");
        for line in [
            "Content-Disposition: form-data; name=\"_method\"",
            "content-disposition:form-data;name=_method",
            "Content-Disposition: form-data; name='_method'",
            "Content-Disposition: form-data; name=\"_m\\ethod\"; filename=\"x\"",
            "Content-Disposition: form-data;\r\n name=\"_method\"",
            "Content-Disposition: form-data;\r\nname=\"_method\"",
            "X: y\n\nContent-Disposition: form-data; name=\"_method\"",
            "X-Content-Disposition: form-data; name=\"_method\"",
            "Content-Disposition: form-data; name=\"x%u002dhttp-method\"",
            "Content-ID: _method",
            "Content-Disposition: form-data; filename=a; NAME = \"%5Fmethod\"",
            "Content-Disposition: form-data; name*=utf-8''_method",
            "Content-Disposition: form-data; name*0=\"_met\"; name*1=hod",
            "Content-Disposition: form-data; name=\"=?utf-8?q?_method?=\"",
            "Content-Disposition: form-data; name=\"[_method]\"",
            "Content-Disposition: form-data; name=\".method\"",
            "Content-Disposition: form-data; name=\"_method%00x\"",
        ] {
            assert!(told(&[PARTS], part(line).as_bytes()), "{line}");
            assert!(!told(&[FORM], part(line).as_bytes()), "{line}");
        }
        // To the end of the body there may be no line that ends it for others.
        for end in ["\n\n", "\n\r\n", "\r\r"] {
            let body = format!(
                "--b\nContent-Disposition: form-data; name=\"_method\"{end}DELETE\n--b--\n"
            );
            assert!(told(&[PARTS], body.as_bytes()), "{end:?}");
        }
        let empty = |lines: usize| {
            let head = "Content-Disposition: form-data; name=x\n".to_owned();
            format!("--b\n{head}{}x\r\n\r\nx", "\n".repeat(lines))
        };
        // The one that ends it for everybody counts too.
        assert!(!told(&[PARTS], empty(limits::FORM_ENDS - 1).as_bytes()));
        assert!(told(&[PARTS], empty(limits::FORM_ENDS).as_bytes()));
        let of = |name: &str, text: &str| {
            let head = format!("Content-Disposition: form-data; name=\"{name}\"");
            part(&format!("{head}\r\n\r\n{text}"))
        };
        for (name, text) in [
            ("method", "x"),
            ("a_method", "x"),
            ("f\"; filename=\"a.method", "x"),
            ("f\"; filename=\"_method.rb", "x"),
            ("f", "<input name=\"_method\">"),
            (
                "f",
                " name=\"_method\"\r\nContent-Disposition: form-data; name=\"_method\"",
            ),
        ] {
            assert!(!told(&[PARTS], of(name, text).as_bytes()), "{name} {text}");
        }
        let long = |length: usize| {
            let head = "\r\nContent-Disposition: form-data; name=x; filename=";
            let fill = "f".repeat(length - head.len() - 4);
            format!("--b{head}{fill}\r\n\r\nx\r\n--b--\r\n")
        };
        assert!(!told(&[PARTS], long(limits::FORM_HEAD).as_bytes()));
        assert!(told(&[PARTS], long(limits::FORM_HEAD + 1).as_bytes()));
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
            assert!(told(&["text/plain"], body.as_bytes()), "{body}");
            assert!(!told(&["image/png"], body.as_bytes()), "{body}");
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
        let wide: Vec<u8> = r#"{"_method":1}"#.bytes().flat_map(|b| [b, 0]).collect();
        assert!(told(&[JSON], &wide) && !told(&["application/connect+json"], b"\0\0\0\0\x02{}"));
    }

    #[test]
    fn a_head_that_leaves_open_how_names_are_written_is_unclear() {
        for (one, clear) in [
            ("multipart/form-data; boundary=b", true),
            ("multipart/form-data; boundary=\"b\" ; x=y", true),
            ("multipart/form-data", false),
            ("multipart/form-data; boundary=a; boundary=b", false),
            ("multipart/form-data; boundary=a,b", false),
            ("multipart/form-data; boundary=\"a b\"", false),
            ("multipart/form-data; boundary=", false),
            ("multipart/form-data; boundary*=utf-8''b", false),
            ("application/json; charset=utf-16le", false),
            ("application/json; charset=\"ISO-8859-15\"", true),
            ("application/x-www-form-urlencoded; charset = ibm037", false),
            (
                "application/x-www-form-urlencoded; charset=utf-8; charset=utf-7",
                false,
            ),
            ("image/png; charset=ibm037", true),
        ] {
            assert_eq!(Names::of(&headers(&[one])).is_ok(), clear, "{one}");
        }
        let of = |length: usize| {
            let one = format!("multipart/form-data; boundary={}", "b".repeat(length));
            Names::of(&headers(&[&one])).is_ok()
        };
        assert!(of(70) && !of(71));
    }
}
