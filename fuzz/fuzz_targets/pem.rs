//! Bundles of certificates from images and hosts: what is taken is whole, and reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../engine/src/trust/pem.rs"]
mod pem;

fuzz_target!(|data: &[u8]| {
    let read = pem::read(data);
    let mut text = String::new();
    for der in &read.certificates {
        assert!(pem::is_whole(der) && der.len() <= pem::MAX_CERTIFICATE);
        pem::write(&mut text, der);
    }
    let again = pem::read(text.as_bytes());
    assert_eq!((again.certificates, again.broken), (read.certificates, 0));
});
