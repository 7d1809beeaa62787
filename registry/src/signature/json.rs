//! The first look at a stranger's JSON, before a parser allocates for it: how long, how deep, of how many values. Everything in
//! this crate that reads signatures, statements and inventories goes through here.

use thiserror::Error;

/// How deep objects and arrays may nest.
pub const DEPTH: usize = 64;
/// How many values one document may hold: each costs a parser far more than the two bytes it takes to write.
pub const VALUES: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unbounded {
    #[error("longer than {0} bytes")]
    Bytes(usize),
    #[error("nested deeper than {DEPTH}")]
    Depth,
    #[error("more than {VALUES} values")]
    Values,
}

/// # Errors
/// Which bound the document is beyond. Whether it is JSON at all is the parser's to say.
pub fn bounded(document: &[u8], bytes: usize) -> Result<(), Unbounded> {
    if document.len() > bytes {
        return Err(Unbounded::Bytes(bytes));
    }
    let (mut depth, mut values, mut inside, mut escaped) = (0usize, 1usize, false, false);
    for &byte in document {
        if inside {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => inside = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => inside = true,
            b'{' | b'[' => {
                depth += 1;
                values += 1;
                if depth > DEPTH {
                    return Err(Unbounded::Depth);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if values > VALUES {
            return Err(Unbounded::Values);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_bounded_at_n_and_not_at_n_plus_one() {
        assert_eq!(bounded(b"[1]", 3), Ok(()));
        assert_eq!(bounded(b"[12]", 3), Err(Unbounded::Bytes(3)));
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(bounded(nested(DEPTH).as_bytes(), 1 << 20), Ok(()));
        assert_eq!(
            bounded(nested(DEPTH + 1).as_bytes(), 1 << 20),
            Err(Unbounded::Depth)
        );
        // One for the document, one for the array, one for each comma.
        let wide = |commas: usize| format!("[{}]", ",".repeat(commas));
        assert_eq!(bounded(wide(VALUES - 2).as_bytes(), 1 << 24), Ok(()));
        assert_eq!(
            bounded(wide(VALUES - 1).as_bytes(), 1 << 24),
            Err(Unbounded::Values)
        );
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = format!("[\"{}\\\"{}\"]", "[".repeat(200), "{".repeat(200));
        assert_eq!(bounded(text.as_bytes(), 1 << 20), Ok(()));
    }
}
