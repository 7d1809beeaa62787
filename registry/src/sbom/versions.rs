//! Ranges of versions, compared by each ecosystem's own rules: SemVer for npm, cargo and Go, PEP 440 for PyPI, Debian's and RPM's
//! orders. For any other there is no order here: only `*` and equality can be decided.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr as _;

use thiserror::Error;

/// The longest range.
pub const RANGE_BYTES: usize = 1 << 10;
/// The most comparisons in one range.
pub const CONSTRAINTS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BanError {
    #[error("a ban names an ecosystem as package URLs do, such as `npm`, `pypi` or `deb`")]
    Ecosystem,
    #[error("a ban names a package, up to 256 characters long")]
    Name,
    #[error(
        "a range is `*`, or comparisons (`<`, `<=`, `>`, `>=`, `=`) that all hold, with a space or `,` between them, and `||` between alternatives"
    )]
    Range,
    #[error("a range is up to {RANGE_BYTES} bytes and {CONSTRAINTS} comparisons long")]
    TooLong,
    #[error("{0:?} is no version by the rules of its ecosystem")]
    Version(String),
}

/// Alternatives, of which one has to hold; each a list of comparisons that all have to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    alternatives: Vec<Vec<Constraint>>,
    written: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Constraint {
    Any,
    Compared(Operator, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
}

// === impl Range ===

impl Range {
    /// # Errors
    /// [`BanError`] where it is empty, too long, or names what is no version in an ecosystem whose rules are known.
    pub fn parse(ecosystem: &str, text: &str) -> Result<Self, BanError> {
        if text.len() > RANGE_BYTES {
            return Err(BanError::TooLong);
        }
        let mut count = 0;
        let mut alternatives = Vec::new();
        for alternative in text.split("||") {
            let mut constraints = Vec::new();
            for part in alternative.split(',') {
                let before = constraints.len();
                let mut comparison = String::new();
                for word in part.split_ascii_whitespace() {
                    comparison.push_str(word);
                    // `>= 1.2` is one comparison in two words.
                    if word.bytes().all(|b| b"<>=".contains(&b)) {
                        continue;
                    }
                    count += 1;
                    constraints.push(Constraint::parse(ecosystem, &comparison)?);
                    comparison.clear();
                }
                if constraints.len() == before || !comparison.is_empty() {
                    return Err(BanError::Range);
                }
            }
            alternatives.push(constraints);
        }
        if count > CONSTRAINTS {
            return Err(BanError::TooLong);
        }
        Ok(Self {
            alternatives,
            written: text.trim().to_owned(),
        })
    }

    /// Whether versions can be told apart by it: by an ecosystem's rules, or because it is about every one.
    pub fn is_decidable(&self, ecosystem: &str) -> bool {
        let mut alternatives = self.alternatives.iter();
        known(ecosystem) || alternatives.any(|all| all.iter().all(|one| *one == Constraint::Any))
    }

    /// Whether a version is in it; nothing where that cannot be said.
    pub fn contains(&self, ecosystem: &str, version: Option<&str>) -> Option<bool> {
        let any = self.alternatives.iter().map(|constraints| {
            let each = constraints.iter().map(|one| one.holds(ecosystem, version));
            three_valued(each, false)
        });
        three_valued(any, true)
    }
}

/// All of them (`decided` false) or one of them (`decided` true), where some may not be known: what decides, decides.
fn three_valued(values: impl Iterator<Item = Option<bool>>, decided: bool) -> Option<bool> {
    let mut known = true;
    for value in values {
        match value {
            Some(value) if value == decided => return Some(decided),
            Some(_) => {}
            None => known = false,
        }
    }
    known.then_some(!decided)
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

// === impl Constraint ===

impl Constraint {
    fn parse(ecosystem: &str, text: &str) -> Result<Self, BanError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let operators = [
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("==", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::Greater),
            ("=", Operator::Equal),
        ];
        let (operator, version) = operators
            .into_iter()
            .find_map(|(sign, operator)| Some((operator, text.strip_prefix(sign)?.trim())))
            .unwrap_or((Operator::Equal, text));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-_~:!^".contains(&byte);
        if version.is_empty() || !version.bytes().all(plain) {
            return Err(BanError::Range);
        }
        // `^1` and `~1` mean something in some ecosystems, and something else at the beginning of a version in others.
        if version.starts_with(['^', '~']) {
            return Err(BanError::Range);
        }
        if known(ecosystem) && compare(ecosystem, version, version) != Some(Ordering::Equal) {
            return Err(BanError::Version(version.to_owned()));
        }
        Ok(Self::Compared(operator, version.to_owned()))
    }

    fn holds(&self, ecosystem: &str, version: Option<&str>) -> Option<bool> {
        let Self::Compared(operator, bound) = self else {
            return Some(true);
        };
        let version = version?;
        if !known(ecosystem) {
            // What is spelt the same is the same.
            let inclusive = matches!(
                operator,
                Operator::Equal | Operator::AtMost | Operator::AtLeast
            );
            return (version == bound).then_some(inclusive);
        }
        let order = compare(ecosystem, version, bound)?;
        Some(match operator {
            Operator::Less => order.is_lt(),
            Operator::AtMost => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::AtLeast => order.is_ge(),
            Operator::Equal => order.is_eq(),
        })
    }
}

fn known(ecosystem: &str) -> bool {
    ["npm", "cargo", "golang", "pypi", "deb", "rpm"].contains(&ecosystem)
}

/// A version against a bound; nothing where one of them is no version of this ecosystem.
fn compare(ecosystem: &str, version: &str, bound: &str) -> Option<Ordering> {
    match ecosystem {
        "npm" | "cargo" | "golang" => {
            let read = |text: &str| {
                semver::Version::parse(text.strip_prefix(['v', '=']).unwrap_or(text)).ok()
            };
            Some(read(version)?.cmp_precedence(&read(bound)?))
        }
        "pypi" => {
            let read = |text: &str| pep440_rs::Version::from_str(text).ok();
            Some(read(version)?.cmp(&read(bound)?))
        }
        "deb" => debian(version, bound),
        "rpm" => rpm(version, bound),
        _ => None,
    }
}

/// A bound without a release is about every release, as in RPM's own dependencies.
fn rpm(version: &str, bound: &str) -> Option<Ordering> {
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".+-_~:^".contains(&byte))
    };
    if !plain(version) || !plain(bound) {
        return None;
    }
    let version = if bound.contains('-') {
        version
    } else {
        version
            .split_once('-')
            .map_or(version, |(before, _)| before)
    };
    Some(rpm_version::rpm_evr_compare(version, bound))
}

/// Debian Policy 5.6.12, as dpkg does it: epoch, upstream version, revision; within each, text and numbers by turns, `~` before
/// everything.
fn debian(left: &str, right: &str) -> Option<Ordering> {
    let (left, right) = (Debian::parse(left)?, Debian::parse(right)?);
    Some(
        left.epoch
            .cmp(&right.epoch)
            .then_with(|| parts(left.upstream, right.upstream))
            .then_with(|| parts(left.revision, right.revision)),
    )
}

struct Debian<'a> {
    epoch: u32,
    upstream: &'a [u8],
    revision: &'a [u8],
}

impl<'a> Debian<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().ok()?, rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let plain = |text: &str, more: &[u8]| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        let whole = upstream.starts_with(|first: char| first.is_ascii_digit())
            && plain(upstream, b".+-~:")
            && plain(revision, b".+~");
        whole.then_some(Self {
            epoch,
            upstream: upstream.as_bytes(),
            revision: revision.as_bytes(),
        })
    }
}

fn parts(mut left: &[u8], mut right: &[u8]) -> Ordering {
    fn digits(text: &[u8]) -> usize {
        text.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }
    fn weight(byte: Option<&u8>) -> i32 {
        match byte {
            Some(b'~') => -1,
            None => 0,
            Some(byte) if byte.is_ascii_digit() => 0,
            Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
            Some(byte) => i32::from(*byte) + 256,
        }
    }
    fn text(text: &[u8]) -> bool {
        text.first().is_some_and(|byte| !byte.is_ascii_digit())
    }
    while !left.is_empty() || !right.is_empty() {
        while text(left) || text(right) {
            let order = weight(left.first()).cmp(&weight(right.first()));
            if order.is_ne() {
                return order;
            }
            left = left.get(1..).unwrap_or_default();
            right = right.get(1..).unwrap_or_default();
        }
        let (a, b) = (left.split_at(digits(left)), right.split_at(digits(right)));
        let number = |digits: &'_ [u8]| {
            let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
            digits[zeros..].to_vec()
        };
        let (x, y) = (number(a.0), number(b.0));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(&y));
        if order.is_ne() {
            return order;
        }
        (left, right) = (a.1, b.1);
    }
    Ordering::Equal
}

#[cfg(test)]
#[path = "versions/tests.rs"]
mod tests;
