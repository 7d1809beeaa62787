//! A value: visible ASCII within bounds, wiped when it goes. It has no `Display`, and its `Debug` says that it is there.

use std::fmt;

use thiserror::Error;
use zeroize::Zeroizing;

/// Longest value in bytes.
pub const MAX_VALUE_BYTES: usize = 16 << 10;
/// Shortest value in bytes: anything shorter is found in ordinary traffic by chance.
pub const MIN_VALUE_BYTES: usize = 8;
/// What is read of a source: the longest value, one line's end, and one byte that says there was more.
pub(crate) const READ_BYTES: usize = MAX_VALUE_BYTES + 3;

/// The value of a credential.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// A value as its source gave it.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub value: Secret,
    /// Seconds since 1970 from when on it is worth nothing; `None`: the source does not say.
    pub expires: Option<u64>,
    /// What renews it without a person.
    pub(crate) renewal: Option<Secret>,
}

impl Fetched {
    pub(crate) fn until(value: Secret, expires: Option<u64>) -> Self {
        Self {
            value,
            expires,
            renewal: None,
        }
    }
}

/// Why bytes are no value. Says nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    #[error("it is empty")]
    Empty,
    #[error("it is shorter than {MIN_VALUE_BYTES} bytes")]
    Short,
    #[error("it is longer than {MAX_VALUE_BYTES} bytes")]
    Long,
    #[error("it holds a space, a line's end or something else that is not visible ASCII")]
    Alphabet,
}

// === impl Secret ===

impl Secret {
    /// Takes the bytes over, without one newline at their end.
    ///
    /// # Errors
    /// [`ValueError`] when they are no value; they are wiped all the same.
    pub fn new(bytes: Vec<u8>) -> Result<Self, ValueError> {
        let mut bytes = Zeroizing::new(bytes);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        match bytes.len() {
            0 => Err(ValueError::Empty),
            n if n > MAX_VALUE_BYTES => Err(ValueError::Long),
            _ if !bytes.iter().all(u8::is_ascii_graphic) => Err(ValueError::Alphabet),
            n if n < MIN_VALUE_BYTES => Err(ValueError::Short),
            _ => Ok(Self(bytes)),
        }
    }

    /// The value itself, for the wire and for comparisons.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn new(text: &str) -> Result<String, ValueError> {
        let secret = Secret::new(text.as_bytes().to_vec())?;
        Ok(String::from_utf8(secret.expose().to_vec()).unwrap())
    }

    #[test]
    fn one_newline_at_the_end_is_no_part_of_a_value_and_nothing_else_is_taken_away() {
        for text in ["abcdefgh", "abcdefgh\n", "abcdefgh\r\n"] {
            assert_eq!(new(text).unwrap(), "abcdefgh");
        }
        for text in [
            "abcdefgh\n\n",
            " abcdefgh",
            "abcdefgh ",
            "abcd efgh",
            "abcdefgh\r",
            "abcdefg\0h",
            "äbcdefghi",
        ] {
            assert_eq!(new(text), Err(ValueError::Alphabet), "{text:?}");
        }
        for text in ["", "\n", "\r\n"] {
            assert_eq!(new(text), Err(ValueError::Empty), "{text:?}");
        }
    }

    #[test]
    fn a_value_has_bounds() {
        assert!(new(&"x".repeat(MIN_VALUE_BYTES)).is_ok());
        assert_eq!(
            new(&"x".repeat(MIN_VALUE_BYTES - 1)),
            Err(ValueError::Short)
        );
        assert!(new(&format!("{}\n", "x".repeat(MAX_VALUE_BYTES))).is_ok());
        assert_eq!(new(&"x".repeat(MAX_VALUE_BYTES + 1)), Err(ValueError::Long));
    }

    #[test]
    fn a_value_is_not_shown() {
        let secret = Secret::new(b"sesame-open".to_vec()).unwrap();
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(…) Secret(…)");
    }
}
