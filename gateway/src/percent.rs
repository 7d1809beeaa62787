//! Percent-encoding (RFC 3986, 2.1): read for looking through what is carried, which never goes out from this; written for a
//! credential's value in a query.

/// Each `%` and two hexadecimal digits as the byte that they stand for, and `%u` with four for one of ASCII, as IIS reads it; anything else as it is.
pub fn decoded(text: &[u8]) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|&b| char::from(b).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let pair = (digit(text.get(at + 1)), digit(text.get(at + 2)));
        match (text[at], pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'%', _) if wide(&text[at..]).is_some() => {
                out.extend(wide(&text[at..]));
                at += 6;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// A character of ASCII that begins a text as `%u00XX`.
fn wide(text: &[u8]) -> Option<u8> {
    let digits = text
        .strip_prefix(b"%u")
        .or_else(|| text.strip_prefix(b"%U"))?;
    let digits = std::str::from_utf8(digits.get(..4)?).ok()?;
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let value = u16::from_str_radix(digits, 16).ok().filter(|_| plain)?;
    u8::try_from(value).ok().filter(u8::is_ascii)
}

/// Everything but what stands for itself everywhere (RFC 3986, 2.3) as `%` and two digits: for a value that we write ourselves.
pub fn encoded(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len() * 3);
    for &b in text {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b);
        } else {
            let digit = |half: u8| DIGITS[usize::from(half & 15)];
            out.extend_from_slice(&[b'%', digit(b >> 4), digit(b)]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_escape_stays() {
        for (text, stands_for) in [
            ("a%41%4a", "aAJ"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%%41", "%zz%A"),
            ("X%u002dA%U005F", "X-A_"),
            ("%u00e9%u002%u+02d%u", "%u00e9%u002%u+02d%u"),
        ] {
            assert_eq!(decoded(text.as_bytes()), stands_for.as_bytes());
        }
    }
}
