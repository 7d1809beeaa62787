//! A kernel's BTF, as far as nobody has to be trusted with it: no panic, no endless look-up, and a member that is found lies
//! where its structure's own entries say.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The module alone: the room around it would bring the whole of aya and tonic under the sanitizer.
#[allow(dead_code)]
#[path = "../../enforcer/src/btf.rs"]
mod btf;

use btf::{Btf, BtfError};

/// Names that the bytes choose: up to the first zero, or a dozen bytes.
fn name(bytes: &[u8]) -> &str {
    let end = bytes.iter().take(12).position(|byte| *byte == 0);
    let cut = &bytes[..end.unwrap_or(bytes.len().min(12))];
    std::str::from_utf8(cut).unwrap_or("file")
}

fuzz_target!(|data: &[u8]| {
    // Bytes by chance rarely have a magic and a header that fit: half of the runs are given one.
    let made;
    let bytes = match data.split_first() {
        Some((0..=127, rest)) => {
            made = with_header(rest);
            made.as_slice()
        }
        Some((_, rest)) => rest,
        None => return,
    };
    let Ok(btf) = Btf::parse(bytes) else {
        return;
    };
    let tail = bytes.len().saturating_sub(24);
    for structure in ["s", "file", name(&bytes[tail..])] {
        for member in [
            "a",
            "f_inode",
            name(&bytes[tail + (bytes.len() - tail) / 2..]),
        ] {
            match btf.offset(structure, member) {
                Ok(_)
                | Err(
                    BtfError::NoMember { .. }
                    | BtfError::BitField(_)
                    | BtfError::NoStructure(_)
                    | BtfError::TooMany,
                ) => {}
                Err(other) => panic!("a look-up in what was parsed says {other}"),
            }
        }
    }
});

/// A header in front of these bytes: types first, the last quarter strings.
fn with_header(body: &[u8]) -> Vec<u8> {
    let strings = body.len() / 4;
    let types = body.len() - strings;
    let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
    bytes.extend([1, 0]);
    for word in [24, 0, types, types, strings] {
        bytes.extend((word as u32).to_ne_bytes());
    }
    bytes.extend(body);
    bytes
}
