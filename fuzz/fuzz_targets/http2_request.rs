//! Requests of HTTP/2 as far as the decision about them: what is let through, written as HTTP/1 as it goes out, is a head that is
//! let through too, with the same method and target.
#![no_main]

use gateway::http::h2;
use gateway::http::head::{self, Authority, Host, Scheme};
use hyper::Request;
use libfuzzer_sys::fuzz_target;
use schema::host::HostName;

fuzz_target!(|data: &[u8]| {
    let Ok(name) = HostName::parse("example.com") else {
        return;
    };
    let authority = Authority {
        host: Host::Name(name),
        port: 443,
        scheme: Scheme::Https,
    };
    // The method and the target, then a field a line.
    let mut lines = data.split(|&b| b == b'\n');
    let (Some(method), Some(uri)) = (lines.next(), lines.next()) else {
        return;
    };
    let mut request = Request::builder().method(method).uri(uri);
    for line in lines {
        let mut words = line.splitn(2, |&b| b == b':');
        if let (Some(name), Some(value)) = (words.next(), words.next()) {
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(()) else {
        return;
    };
    let (parts, ()) = request.into_parts();
    if h2::check(&parts, &authority).is_err() {
        return;
    }
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut head = format!(
        "{} {target} HTTP/1.1\r\nhost: {authority}\r\n",
        parts.method
    )
    .into_bytes();
    for (name, value) in &parts.headers {
        if *name != hyper::header::HOST {
            head.extend(name.as_str().as_bytes());
            head.extend(b": ");
            head.extend(value.as_bytes());
            head.extend(b"\r\n");
        }
    }
    head.extend(b"\r\n");
    if let Err(refusal) = head::check(&head, &authority) {
        // The one bound that a head of HTTP/1 has and a list of fields has not: the library keeps that one.
        assert_eq!(
            refusal,
            head::Refusal::HeadTooLong,
            "{}",
            String::from_utf8_lossy(&head)
        );
    }
});
