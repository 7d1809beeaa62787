//! A DNS message from the agent: read, and answered in every way that is answered.
#![no_main]

use std::net::Ipv4Addr;

use gateway::dns::message::{self, Code};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match message::parse(data) {
        Ok(query) => {
            let _ = query.name();
            for code in [
                Code::NoError,
                Code::NxDomain,
                Code::ServFail,
                Code::Refused,
                Code::BadVers,
            ] {
                assert_eq!(query.empty(code)[..2], query.id.to_be_bytes());
            }
            let answer = query.address(Ipv4Addr::new(198, 18, 1, 0));
            assert!(answer.len() <= data.len() + 64, "an answer amplifies");
            // An answer is never taken for a query.
            assert_eq!(message::parse(&answer), Err(message::Refusal::Drop));
        }
        Err(refusal) => assert!(refusal.answer().is_none_or(|answer| answer.len() == 12)),
    }
});
