//! Names in forms, in their parts and in JSON: the same answer however they are cut, whatever a body says that it is.
#![no_main]

use gateway::http::form::Names;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const TYPES: [&str; 4] = [
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
    "application/json",
    "multipart/json; boundary=b; application/x-www-form-urlencoded",
];

fn told(headers: &HeaderMap, body: &[u8], size: usize) -> bool {
    let Ok(Some(mut names)) = Names::of(headers) else {
        return false;
    };
    body.chunks(size).any(|piece| names.push(piece))
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, body)) = data.split_first() else {
        return;
    };
    for one in TYPES {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(one))]);
        let whole = told(&headers, body, body.len().max(1));
        assert_eq!(told(&headers, body, usize::from(size).max(1)), whole);
    }
});
