//! What stands for a value inside a container: as long as the value and of its shape, so that programs that look at a key before
//! they use it are content. Worth nothing to whoever reads it; the gateway alone knows what it stands for.
//!
//! Its characters come out of a key of the host's, and are the same for a workspace in each session: an agent that asks a person
//! once whether it may use a key, and notes the answer by the key's last characters, need not ask again.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::value::Secret;

/// Of a [`Seed`]: a block of SHA-256, which HMAC takes as it is (RFC 2104).
pub const KEY_BYTES: usize = 64;

/// Fewest random characters in a placeholder: so that it is met nowhere by chance.
pub const MIN_RANDOM: usize = 16;

/// Beginnings that say what kind of key follows and nothing of the key; a longer one stands before its own beginning.
const PUBLIC: [&str; 33] = [
    "github_pat_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "sk-ant-api03-",
    "sk-ant-oat01-",
    "sk-ant-admin01-",
    "sk-ant-",
    "sk-proj-",
    "sk-svcacct-",
    "sk-admin-",
    "sk-or-v1-",
    "sk_live_",
    "sk_test_",
    "sk-",
    "AIza",
    "glpat-",
    "npm_",
    "pypi-",
    "hf_",
    "gsk_",
    "xai-",
    "dop_v1_",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "rk_live_",
    "rk_test_",
    "AKIA",
    "ASIA",
    "dckr_pat_",
];

#[derive(Debug, Error)]
pub enum PlaceholderError {
    #[error(
        "the value leaves room for {0} random characters in its placeholder, and {MIN_RANDOM} are needed: a shorter one could be met by chance"
    )]
    Short(usize),
}

/// What a placeholder's characters are derived from.
#[derive(Clone, Copy)]
pub struct Seed<'a> {
    /// The host's, random, and nowhere else.
    pub key: &'a [u8; KEY_BYTES],
    pub workspace: &'a [u8],
    pub credential: &'a str,
}

/// A placeholder for the value: of its length, with its public beginning, and `-`, `_` and `.` where it has them.
///
/// # Errors
/// [`PlaceholderError::Short`] for a value that is too short to be told apart from anything else.
pub fn placeholder(value: &Secret, seed: Seed<'_>) -> Result<String, PlaceholderError> {
    let value = value.expose();
    let public = PUBLIC
        .iter()
        .find(|prefix| value.starts_with(prefix.as_bytes()));
    let (kept, rest) = value.split_at(public.map_or(0, |prefix| prefix.len()));
    let alphabet = alphabet(rest);
    let free = rest.iter().filter(|byte| !is_joint(**byte)).count();
    if free < MIN_RANDOM {
        return Err(PlaceholderError::Short(free));
    }
    let mut stream = Stream::of(seed);
    loop {
        let mut out: Vec<u8> = kept.to_vec();
        for byte in rest {
            out.push(match is_joint(*byte) {
                true => *byte,
                false => stream.one_of(alphabet),
            });
        }
        if out != value {
            // ASCII by construction.
            return Ok(out.into_iter().map(char::from).collect());
        }
    }
}

/// What joins the parts of a key and is not the key.
fn is_joint(byte: u8) -> bool {
    matches!(byte, b'-' | b'_' | b'.')
}

/// The narrowest alphabet that programs may look for: hexadecimal, one case, or both.
fn alphabet(rest: &[u8]) -> &'static [u8] {
    const HEX: &[u8] = b"0123456789abcdef";
    const LOWER: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    const UPPER: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const BOTH: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let all = |alphabet: &[u8]| rest.iter().all(|b| is_joint(*b) || alphabet.contains(b));
    [HEX, LOWER, UPPER]
        .into_iter()
        .find(|alphabet| all(alphabet))
        .unwrap_or(BOTH)
}

/// The bytes of a seed: HMAC-SHA256 in counter mode (NIST SP 800-108r1, 4.1) under its key, about its credential and workspace.
struct Stream {
    mac: Hmac<Sha256>,
    blocks: u32,
    block: Vec<u8>,
}

impl Stream {
    fn of(seed: Seed<'_>) -> Self {
        let mut mac = Hmac::<Sha256>::new(seed.key.into());
        let name = seed.credential.as_bytes();
        mac.update(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(name);
        mac.update(seed.workspace);
        Self {
            mac,
            blocks: 0,
            block: Vec::new(),
        }
    }

    /// One of at most 128 characters, each as likely as the others.
    fn one_of(&mut self, alphabet: &[u8]) -> u8 {
        loop {
            let Some(byte) = self.block.pop() else {
                let mut mac = self.mac.clone();
                mac.update(&self.blocks.to_be_bytes());
                self.blocks = self.blocks.wrapping_add(1);
                self.block = mac.finalize().into_bytes().to_vec();
                continue;
            };
            if let Some(chosen) = alphabet.get(usize::from(byte & 0x7f)) {
                return *chosen;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    const SEED: Seed<'_> = Seed {
        key: &[7; KEY_BYTES],
        workspace: b"/home/dev/project",
        credential: "github",
    };

    fn of(value: &str) -> Result<String, PlaceholderError> {
        from(value, SEED)
    }

    fn from(value: &str, seed: Seed<'_>) -> Result<String, PlaceholderError> {
        placeholder(&Secret::new(value.as_bytes().to_vec()).unwrap(), seed)
    }

    #[test]
    fn a_placeholder_has_the_values_length_and_public_beginning_and_nothing_else_of_it() {
        for (value, kept) in [
            ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_"),
            (
                "github_pat_11AAAAAAA0abcdefghijkl_MNOPQRSTUVWXYZabcdefghijklmnop",
                "github_pat_",
            ),
            ("sk-ant-api03-AbCdEfGhIjKlMnOpQrStUvWxYz", "sk-ant-api03-"),
            ("sk-AbCdEfGhIjKlMnOpQrStUvWxYz", "sk-"),
            ("AIzaSyAbCdEfGhIjKlMnOpQrStUvWxYz0123456", "AIza"),
            ("glpat-AbCdEfGhIjKlMnOpQrSt", "glpat-"),
            ("npm_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789", "npm_"),
            ("AbCdEfGhIjKlMnOp", ""),
        ] {
            let placeholder = of(value).unwrap();
            assert_eq!(placeholder.len(), value.len());
            assert!(placeholder.starts_with(kept), "{placeholder}");
            assert_ne!(placeholder, value);
            // By chance one place in 62 agrees; all of eight in a row do not.
            let rest = &value.as_bytes()[kept.len()..];
            let shared = rest.windows(8).any(|part| {
                placeholder.as_bytes()[kept.len()..]
                    .windows(8)
                    .any(|other| other == part)
            });
            assert!(!shared, "{value} {placeholder}");
        }
    }

    #[test]
    fn its_shape_is_the_values() {
        let hex = of("0123456789abcdef0123456789abcdef01234567").unwrap();
        assert!(
            hex.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{hex}"
        );
        let lower = of("0123456789abcdefghijklmnopqrstuvwxyz").unwrap();
        assert!(
            lower
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()),
            "{lower}"
        );
        let joined = of("aaaaaaaa-bbbb-cccc_dddd.EEEEEEEE").unwrap();
        let joints: Vec<_> = joined
            .match_indices(|c: char| !c.is_ascii_alphanumeric())
            .collect();
        assert_eq!(joints, [(8, "-"), (13, "-"), (18, "_"), (23, ".")]);
        // What no field's encoding leaves alone is not repeated.
        let plain = of("a+b/c=d\"e%f&g:h;i,j'k<l>m").unwrap();
        assert!(plain.bytes().all(|b| b.is_ascii_alphanumeric()), "{plain}");
    }

    #[test]
    fn one_workspace_has_one_placeholder_and_no_other_has_it() {
        let value = "AbCdEfGhIjKlMnOp";
        let first = of(value).unwrap();
        assert_eq!(of(value).unwrap(), first);
        // Not by the value: one that follows another in rotation has the same.
        assert_eq!(of("ZbCdEfGhIjKlMnOp").unwrap(), first);
        let mut all = BTreeSet::from([first]);
        let others = [
            Seed {
                key: &[8; KEY_BYTES],
                ..SEED
            },
            Seed {
                workspace: b"/home/dev/projecu",
                ..SEED
            },
            Seed {
                credential: "gitlab",
                ..SEED
            },
            // The same bytes in a row, parted elsewhere.
            Seed {
                credential: "githu",
                workspace: b"b/home/dev/project",
                ..SEED
            },
        ];
        all.extend(others.map(|seed| from(value, seed).unwrap()));
        assert_eq!(all.len(), 5);
        // What would be the value itself is another.
        let own = of(value).unwrap();
        assert_ne!(of(&own).unwrap(), own);
    }

    #[test]
    fn a_value_too_short_for_sixteen_random_characters_is_refused_in_words() {
        assert!(of(&"x".repeat(MIN_RANDOM)).is_ok());
        for value in [
            "x".repeat(MIN_RANDOM - 1),
            format!("ghp_{}", "x".repeat(MIN_RANDOM - 1)),
            "-".repeat(40),
        ] {
            let error = of(&value).unwrap_err().to_string();
            assert!(error.contains("16 are needed"), "{error}");
        }
        assert!(of(&format!("ghp_{}", "x".repeat(MIN_RANDOM))).is_ok());
    }

    #[test]
    fn no_public_beginning_hides_a_longer_one() {
        for (i, prefix) in PUBLIC.iter().enumerate() {
            assert!(
                !PUBLIC[i + 1..]
                    .iter()
                    .any(|later| later.starts_with(prefix)),
                "{prefix}"
            );
        }
    }
}
