//! What the characters of a key look like behind its prefix, decided on as much of the text as has come: the table in `formats`
//! is written in these terms. Nothing here looks further than [`LONGEST`].

/// Longest text that has to be seen to decide about one.
pub const LONGEST: usize = 320;

/// What a key's characters can be, behind its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alphabet {
    /// Letters and digits.
    Alnum,
    /// Lower case hexadecimal.
    Hex,
    /// Capitals and 2 to 7 (RFC 4648, 6).
    Base32,
    /// Capitals and digits.
    Upper,
    /// Letters, digits, `-`, `_`.
    Word,
    /// The same and `.`.
    Dotted,
    /// Base64 with its padding, in both spellings.
    Base64,
}

/// What stands behind a prefix.
#[derive(Clone, Copy)]
pub enum Shape {
    /// So many characters, no fewer and no more; the check is asked about them.
    Exactly(Alphabet, usize, Check),
    /// At least and at most so many.
    Between(Alphabet, usize, usize, Check),
    /// At least so many: decided as soon as they are there.
    AtLeast(Alphabet, usize),
    Other(fn(&[u8]) -> Verdict),
}

/// Of the characters behind the prefix.
pub type Check = fn(&[u8]) -> bool;

/// What can be said of the text behind a prefix, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    No,
    /// More of the text is needed; at its end: no.
    More,
    /// It is one, so many bytes long.
    Yes(usize),
}

use Alphabet::{Alnum, Upper, Word};

// === impl Alphabet ===

impl Alphabet {
    pub fn has(self, b: u8) -> bool {
        match self {
            Self::Alnum => b.is_ascii_alphanumeric(),
            Self::Hex => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
            Self::Base32 => b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b),
            Self::Upper => b.is_ascii_uppercase() || b.is_ascii_digit(),
            Self::Word => b.is_ascii_alphanumeric() || b == b'-' || b == b'_',
            Self::Dotted => b.is_ascii_alphanumeric() || b"-_.~".contains(&b),
            Self::Base64 => b.is_ascii_alphanumeric() || b"+/-_=".contains(&b),
        }
    }

    /// How many of them a text begins with, counted no further than `most`.
    fn run(self, text: &[u8], most: usize) -> usize {
        let text = &text[..text.len().min(most)];
        text.iter()
            .position(|&b| !self.has(b))
            .unwrap_or(text.len())
    }
}

// === impl Shape ===

impl Shape {
    /// Of which characters there are how many at the least, right behind the prefix; `None`: it is another matter.
    pub fn least(&self) -> Option<(Alphabet, usize)> {
        match *self {
            Self::Exactly(alphabet, least, _)
            | Self::Between(alphabet, least, ..)
            | Self::AtLeast(alphabet, least) => Some((alphabet, least)),
            Self::Other(_) => None,
        }
    }

    /// What a text behind a prefix is. `more`: it has not come to its end.
    pub fn judge(&self, text: &[u8], more: bool) -> Verdict {
        let text = &text[..text.len().min(LONGEST)];
        match self.decide(text) {
            // What would have to end ends here: a character that is in no alphabet says so.
            Verdict::More if !more => match self.decide(&[text, &[0]].concat()) {
                Verdict::More => Verdict::No,
                verdict => verdict,
            },
            verdict => verdict,
        }
    }

    fn decide(&self, text: &[u8]) -> Verdict {
        match *self {
            Self::Exactly(alphabet, length, check) => {
                bounded(text, alphabet, length, length, check)
            }
            Self::Between(alphabet, least, most, check) => {
                bounded(text, alphabet, least, most, check)
            }
            Self::AtLeast(alphabet, least) => match alphabet.run(text, least) {
                run if run == least && is_random(&text[..least]) => Verdict::Yes(least),
                run if run == text.len() && run < least => Verdict::More,
                _ => Verdict::No,
            },
            Self::Other(judge) => judge(text),
        }
    }
}

fn bounded(text: &[u8], alphabet: Alphabet, least: usize, most: usize, check: Check) -> Verdict {
    let run = alphabet.run(text, most + 1);
    if run == text.len() && run <= most {
        return Verdict::More;
    }
    let ends = !text.get(run).is_some_and(u8::is_ascii_alphanumeric);
    if ends && (least..=most).contains(&run) && is_random(&text[..run]) && check(&text[..run]) {
        Verdict::Yes(run)
    } else {
        Verdict::No
    }
}

pub fn any(_: &[u8]) -> bool {
    true
}

/// What people write for a key in a text about keys is none: it repeats itself, or counts.
fn is_random(text: &[u8]) -> bool {
    let mut seen = [false; 256];
    let mut distinct = 0;
    for &b in text {
        distinct += usize::from(!std::mem::replace(&mut seen[usize::from(b)], true));
    }
    distinct >= 8.min(text.len() / 3)
        && !text
            .windows(5)
            .any(|part| part.iter().all(|&b| b == part[0]))
        && !text.windows(7).any(|part| {
            let next = |pair: &[u8]| {
                pair[0].to_ascii_lowercase().wrapping_add(1) == pair[1].to_ascii_lowercase()
            };
            part.windows(2).all(next)
        })
}

/// As Amazon's own documents spell one.
pub fn not_an_example(text: &[u8]) -> bool {
    !text.ends_with(b"EXAMPLE") && !text.ends_with(b"EXAMPLEKEY")
}

/// The last six of 36 are a CRC-32 of the others, in base 62.
pub fn crc32_base62(text: &[u8]) -> bool {
    text.split_at_checked(30)
        .is_some_and(|(random, sum)| sum == checksum(random))
}

fn checksum(random: &[u8]) -> [u8; 6] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut crc = flate2::Crc::new();
    crc.update(random);
    let mut rest = crc.sum();
    let mut wanted = [b'0'; 6];
    for digit in wanted.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    wanted
}

/// With its checksum behind it.
#[cfg(test)]
pub fn sealed(random: &str) -> String {
    format!(
        "{random}{}",
        String::from_utf8_lossy(&checksum(random.as_bytes()))
    )
}

/// `: "`, `=`, `>`: what stands between a name and its value, in JSON within JSON too.
fn assigned(text: &[u8]) -> usize {
    let between = |b: &u8| b" \t\"':=>\\|,`".contains(b);
    text.iter()
        .take(16)
        .position(|b| !between(b))
        .unwrap_or(text.len().min(16))
}

pub fn aws_secret(text: &[u8]) -> Verdict {
    const LENGTH: usize = 40;
    let at = assigned(text);
    if at == text.len() && at < 16 {
        return Verdict::More;
    }
    let value = &text[at..];
    let is = |b: &u8| b.is_ascii_alphanumeric() || *b == b'+' || *b == b'/';
    let run = value.iter().take(LENGTH + 1).take_while(|b| is(b)).count();
    let mixed = |value: &[u8]| {
        value.iter().any(u8::is_ascii_digit)
            && value.iter().any(u8::is_ascii_uppercase)
            && value.iter().any(u8::is_ascii_lowercase)
    };
    match run {
        _ if at == 0 => Verdict::No,
        run if run == value.len() && run <= LENGTH => Verdict::More,
        LENGTH
            if mixed(&value[..LENGTH])
                && is_random(&value[..LENGTH])
                && not_an_example(&value[..LENGTH]) =>
        {
            Verdict::Yes(at + LENGTH)
        }
        _ => Verdict::No,
    }
}

/// A private key of any kind (RFC 7468, and OpenSSH's and PGP's): its first line, then at least forty characters of it, whatever a
/// text within a text makes of the ends of its lines.
pub fn pem(text: &[u8]) -> Verdict {
    const LABEL: usize = 48;
    const BODY: usize = 40;
    const MOST: usize = LONGEST - 8;
    let label = &text[..text.len().min(LABEL)];
    let Some(end) = label.windows(5).position(|part| part == b"-----") else {
        let is = |b: &u8| b.is_ascii_alphanumeric() || *b == b' ' || *b == b'-' || *b == b'+';
        let could = label.len() < LABEL && label.iter().all(is);
        return if could { Verdict::More } else { Verdict::No };
    };
    let words = label[..end]
        .iter()
        .map(|b| if *b == b'+' { b' ' } else { *b });
    let words: Vec<u8> = words.collect();
    let private = words.ends_with(b" PRIVATE KEY") || words.ends_with(b" PRIVATE KEY BLOCK");
    if !private {
        return Verdict::No;
    }
    let mut at = end + 5;
    let mut body = 0;
    while at < text.len() && at < MOST {
        match text[at] {
            b if b.is_ascii_alphanumeric() || b"+/=".contains(&b) => {
                body += 1;
                if body == BODY && is_random(&text[at + 1 - BODY..=at]) {
                    return Verdict::Yes(at + 1);
                }
            }
            b'\\' => {
                body = 0;
                at += usize::from(matches!(text.get(at + 1), Some(b'n' | b'r')));
            }
            b'-' if text.get(at + 1) == Some(&b'-') => return Verdict::No,
            // Fields ahead of the key (RFC 1421, RFC 9580), and ends of lines.
            b if b"\r\n \t:,.-()".contains(&b) => body = 0,
            _ => return Verdict::No,
        }
        at += 1;
    }
    if at < MOST {
        Verdict::More
    } else {
        Verdict::No
    }
}

/// Parts that a `/` divides, each with its alphabet and least length; the last one is as long as it gets.
fn parts(text: &[u8], parts: &[(Alphabet, usize, usize)]) -> Verdict {
    let mut at = 0;
    for (i, &(alphabet, least, most)) in parts.iter().enumerate() {
        let run = alphabet.run(&text[at..], most);
        let last = i + 1 == parts.len();
        if last && run >= least {
            return Verdict::Yes(at + run);
        }
        at += run;
        match text.get(at) {
            None => return Verdict::More,
            Some(b'/') if run >= least => at += 1,
            Some(_) => return Verdict::No,
        }
    }
    Verdict::No
}

pub fn slack_webhook(text: &[u8]) -> Verdict {
    parts(text, &[(Upper, 7, 16), (Upper, 8, 16), (Alnum, 24, 24)])
}

pub fn discord_webhook(text: &[u8]) -> Verdict {
    parts(text, &[(Upper, 16, 24), (Word, 60, 60)])
}
