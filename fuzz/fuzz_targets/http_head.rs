//! Requests from the agent, head and framing: the same outcome however they are cut, and nothing out that did not go in.
#![no_main]

use gateway::http::framer::Framer;
use gateway::http::head::{self, Authority, Host, Scheme};
use libfuzzer_sys::fuzz_target;
use schema::host::HostName;

fuzz_target!(|data: &[u8]| {
    let Ok(name) = HostName::parse("example.com") else {
        return;
    };
    let authority = Authority {
        host: Host::Name(name),
        port: 80,
        scheme: Scheme::Http,
    };
    let _ = head::check(data, &authority);

    let mut out = Vec::new();
    let whole = Framer::new(authority.clone()).push(data, &mut out);
    assert!(data.starts_with(&out));

    let mut framer = Framer::new(authority);
    let mut pieces = Vec::new();
    let mut piecewise = Ok(());
    for byte in data {
        piecewise = framer.push(&[*byte], &mut pieces);
        if piecewise.is_err() {
            break;
        }
    }
    assert_eq!(
        whole.map_err(|r| r.refusal),
        piecewise.map_err(|r| r.refusal)
    );
    assert_eq!(out, pieces);
});
