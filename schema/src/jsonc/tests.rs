#![allow(clippy::unwrap_used)]
use super::*;

fn codes(text: &str) -> Vec<(&'static str, u32, u32)> {
    match parse(text.as_bytes(), "f.json") {
        Ok(_) => Vec::new(),
        Err(found) => found
            .iter()
            .map(|diagnostic| match &diagnostic.place {
                Some(crate::diag::Place::File {
                    position: Some(at), ..
                }) => (diagnostic.code, at.line, at.column),
                _ => (diagnostic.code, 0, 0),
            })
            .collect(),
    }
}

#[test]
fn comments_and_trailing_commas_are_the_only_liberties() {
    for text in [
        "{}",
        "// c\n{ /* x */ \"a\": [1, 2, /* y */ ], // z\n }",
        "\u{feff}{\"a\": \"/* not a comment */ // nor this, }\",}",
        "/**/[/***/]",
        "{\"a\":-1.5e+3,\"b\":\"\\u00fc\\n\"}\r\n",
    ] {
        assert_eq!(codes(text), [], "{text}");
    }
    for text in [
        "",
        "  ",
        "// only a comment",
        "{a: 1}",
        "{'a': 1}",
        "{\"a\": 'b'}",
        "{\"a\": 0x1}",
        "{\"a\": +1}",
        "{\"a\": .5}",
        "{\"a\": 5.}",
        "{\"a\": 01}",
        "{\"a\": NaN}",
        "{\"a\": Infinity}",
        "{\"a\": 1 \"b\": 2}",
        "[1 2]",
        "[{} {}]",
        "{\"a\": {} \"b\": 1}",
        "{\"a\": [] \"b\": 1}",
        "[,]",
        "{,}",
        "[1,,]",
        "[1,,2]",
        "{\"a\":1,,}",
        "{} {}",
        "{}x",
        "{",
        "[",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\": \"\\x41\"}",
        "{\"a\": \"\\v\"}",
        "{\"a\": \"\\\n\"}",
        "{\"a\": \"\t\"}",
        "{\"a\": \"\n\"}",
        "{\"a\": \"\u{0}\"}",
        "{\"a\": \"\\ud800\"}",
        "{\"a\": \"\\udc00\\ud800\"}",
        "/* open",
        "{\"a\": tru}",
        "{\"a\": undefined}",
        "{\"a\": 1e}",
        "{\"a\": -}",
        "{\"a\": \"b",
        "{\"a\" 1}",
        "# x\n{}",
        "{\"a\": `b`}",
        "{\"a\": True}",
        "{\"a\": 1_000}",
        "]",
        "{]",
    ] {
        let found = codes(text);
        assert_eq!(found.len(), 1, "{text:?}: {found:?}");
        assert_eq!(found[0].0, "syntax", "{text:?}");
        assert!(found[0].1 >= 1 && found[0].2 >= 1, "{text:?}: {found:?}");
    }
}

#[test]
fn duplicate_keys_are_found_everywhere_and_in_every_spelling() {
    assert_eq!(
        codes("{\"a\": 1,\n \"b\": {\"c\": 1, \"\\u0063\": 2},\n \"a\": 3}"),
        [("duplicate-key", 2, 16), ("duplicate-key", 3, 2)]
    );
}

#[test]
fn depth_is_bounded_before_anything_recurses() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert_eq!(codes(&nested(MAX_DEPTH)), []);
    assert_eq!(codes(&nested(MAX_DEPTH + 1)), [("too-deep", 1, 65)]);
    assert_eq!(codes(&"[".repeat(100_000)), [("too-deep", 1, 65)]);
    assert_eq!(codes(&"{\"a\":".repeat(100_000))[0].0, "too-deep");
    assert_eq!(
        codes(&format!("[\"{}\"]", "[".repeat(1000))),
        [],
        "brackets in a string do not nest"
    );
    assert_eq!(
        codes(&format!(
            "[\"\\\"{}\"] // {}\n",
            "[".repeat(1000),
            "[".repeat(1000)
        )),
        []
    );
    assert_eq!(codes(&format!("/*{}*/[]", "[".repeat(1000))), []);
    assert_eq!(codes(&format!("/*{}", "[".repeat(1000)))[0].0, "syntax");
}

#[test]
fn size_is_bounded_for_files_and_strings() {
    let file = |n: usize| format!("[]{}", " ".repeat(n - 2));
    assert_eq!(codes(&file(MAX_FILE_BYTES)), []);
    assert_eq!(codes(&file(MAX_FILE_BYTES + 1)), [("too-large", 0, 0)]);
    let string = |n: usize| format!("[\"{}\"]", "x".repeat(n));
    assert_eq!(codes(&string(MAX_STRING_BYTES)), []);
    assert_eq!(codes(&string(MAX_STRING_BYTES + 1)), [("too-large", 1, 2)]);
    assert_eq!(
        codes(&format!("{{\"{}\":1}}", "k".repeat(MAX_STRING_BYTES + 1))),
        [("too-large", 1, 2)]
    );
}

#[test]
fn what_is_not_utf8_is_refused_where_it_stands() {
    let found = parse(b"{\n \"\xc3\xbc\": \"\xff\"}", "f.json").unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "f.json:2:8: not UTF-8: invalid byte at offset 10 [not-utf8]\n  help: save the file as UTF-8"
    );
    let found = parse(b"\xff\xfe{\0}\0", "f.json").unwrap_err();
    assert!(found[0].help.as_ref().unwrap().contains("UTF-16"));
}

#[test]
fn a_long_line_of_many_values_is_read_in_linear_time() {
    let text = format!("[{}0]", "{\"k\":\"v\"},".repeat(100_000));
    let started = std::time::Instant::now();
    assert_eq!(codes(&text), []);
    assert!(started.elapsed().as_secs() < 20);
}
