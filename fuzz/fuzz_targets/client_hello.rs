//! The first bytes of a TLS client: the same outcome however they are cut.
#![no_main]

use gateway::tls::client_hello::{Assembler, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = Assembler::new().push(data);
    let mut assembler = Assembler::new();
    let mut piecewise = Ok(None);
    for byte in data {
        piecewise = assembler.push(&[*byte]);
        if !matches!(piecewise, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole, piecewise);
    let _ = parse(data);
});
