//! The file that `bundle import` reads is a stranger's: reading it never panics and asks for no more memory than it is long, and
//! what is read has the digests that it is called by.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use registry::portable::Portable;
use schema::digest::Digest;

fuzz_target!(|data: &[u8]| {
    let Ok(mut opened) = Portable::open(Cursor::new(data), &mut |_| {}) else {
        return;
    };
    let all: Vec<Digest> = opened.digests().copied().collect();
    for digest in all {
        let bytes = opened.blob(&digest, data.len() as u64).expect("it was read before");
        assert_eq!(Digest::of(&bytes), digest);
        let _ = opened.image(&digest);
    }
});
