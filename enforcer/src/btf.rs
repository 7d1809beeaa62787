//! Where the running kernel keeps a structure's member, from its BTF (kernel Documentation/bpf/btf.rst): what programs that
//! read kernel structures are given at load, so that one object serves every kernel. aya has no public call for it.
//! Reads bytes that only the kernel writes, and trusts none of them.

/// Largest BTF that is read, in bytes (a distribution kernel's has 5 to 10 MiB).
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Anonymous structures and unions inside one another.
pub const MAX_DEPTH: usize = 16;
/// Members looked at for one answer: a structure that holds itself, nameless and often, would have no end.
pub const MAX_LOOKS: usize = 1 << 16;

const MAGIC: u16 = 0xeb9f;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    #[error("not BTF, or of another byte order or version")]
    Header,
    #[error("BTF of {0} bytes is more than is read")]
    TooLarge(usize),
    #[error("BTF ends in the middle of a type")]
    Truncated,
    #[error("BTF has a kind of type that is not known: {0}")]
    Kind(u32),
    #[error("the kernel's BTF has no structure {0}")]
    NoStructure(String),
    #[error("structure {structure} has no member {member}")]
    NoMember { structure: String, member: String },
    #[error("member {0} is a bit field")]
    BitField(String),
    #[error("a structure has more members than are looked at")]
    TooMany,
}

/// The BTF of one object.
#[derive(Debug)]
pub struct Btf<'a> {
    /// Of a module, the kernel's own: numbers of types and places of strings go on from there.
    base: Option<&'a Btf<'a>>,
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
struct Type<'a> {
    name: u32,
    info: u32,
    reference: u32,
    /// What follows the fixed part.
    rest: &'a [u8],
}

const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
/// TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG: names for another type.
const ALIASES: [u32; 5] = [8, 9, 10, 11, 18];

impl Type<'_> {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn count(&self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn has_bit_fields(&self) -> bool {
        self.info >> 31 == 1
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let slice = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(slice.try_into().ok()?))
}

fn section(bytes: &[u8], base: usize, offset: u32, length: u32) -> Option<&[u8]> {
    let start = base.checked_add(offset as usize)?;
    bytes.get(start..start.checked_add(length as usize)?)
}

impl<'a> Btf<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        if bytes.len() > MAX_BYTES {
            return Err(BtfError::TooLarge(bytes.len()));
        }
        let magic = bytes.get(..2).ok_or(BtfError::Header)?;
        if magic != MAGIC.to_ne_bytes() || bytes.get(2) != Some(&1) {
            return Err(BtfError::Header);
        }
        let field = |at| word(bytes, at).ok_or(BtfError::Header);
        let base = field(4)? as usize;
        let mut rest = section(bytes, base, field(8)?, field(12)?).ok_or(BtfError::Header)?;
        let strings = section(bytes, base, field(16)?, field(20)?).ok_or(BtfError::Header)?;
        let mut types = Vec::new();
        while !rest.is_empty() {
            let part = |at| word(rest, at).ok_or(BtfError::Truncated);
            let mut found = Type {
                name: part(0)?,
                info: part(4)?,
                reference: part(8)?,
                rest: &[],
            };
            let length = extra(&found)?;
            let end = 12 + length;
            found.rest = rest.get(12..end).ok_or(BtfError::Truncated)?;
            rest = &rest[end..];
            types.push(found);
        }
        Ok(Self {
            base: None,
            types,
            strings,
        })
    }

    /// Of a module that was built against `base`.
    pub fn of_module(base: &'a Btf<'a>, bytes: &'a [u8]) -> Result<Self, BtfError> {
        Ok(Self {
            base: Some(base),
            ..Self::parse(bytes)?
        })
    }

    /// Looks no further than the name is long: a section of strings may be one long string.
    fn is_named(&self, offset: u32, name: &[u8]) -> bool {
        let mut offset = offset as usize;
        if let Some(base) = self.base {
            match offset.checked_sub(base.strings.len()) {
                Some(own) => offset = own,
                None => return base.is_named(offset as u32, name),
            }
        }
        let rest = self.strings.get(offset..).unwrap_or_default();
        rest.strip_prefix(name)
            .is_some_and(|after| matches!(after, [] | [0, ..]))
    }

    /// Type ids count from 1; 0 is void.
    fn of_id(&self, id: u32) -> Option<&Type<'a>> {
        let index = (id as usize).checked_sub(1)?;
        match self.base {
            Some(base) if index < base.types.len() => base.of_id(id),
            Some(base) => self.types.get(index - base.types.len()),
            None => self.types.get(index),
        }
    }

    /// Offset of a member in bytes from the start of its structure, anonymous members looked into.
    pub fn offset(&self, structure: &str, member: &str) -> Result<u32, BtfError> {
        let candidates = || {
            self.types
                .iter()
                .filter(|t| t.kind() == STRUCT && self.is_named(t.name, structure.as_bytes()))
        };
        if candidates().next().is_none() {
            return Err(BtfError::NoStructure(structure.to_owned()));
        }
        let mut looks = MAX_LOOKS;
        for found in candidates() {
            if let Some(bits) = self.find(found, member.as_bytes(), MAX_DEPTH, &mut looks)? {
                return Ok(bits / 8);
            }
        }
        Err(BtfError::NoMember {
            structure: structure.to_owned(),
            member: member.to_owned(),
        })
    }

    /// How many parameters a function has; none where there is no such function.
    pub fn parameters(&self, function: &str) -> Option<usize> {
        let is = |t: &&Type<'a>| t.kind() == FUNC && self.is_named(t.name, function.as_bytes());
        let found = self.types.iter().find(is)?;
        let proto = self.of_id(found.reference)?;
        (proto.kind() == FUNC_PROTO).then(|| proto.count())
    }

    fn find(
        &self,
        structure: &Type<'a>,
        member: &[u8],
        depth: usize,
        looks: &mut usize,
    ) -> Result<Option<u32>, BtfError> {
        for entry in structure.rest.chunks_exact(12) {
            *looks = looks.checked_sub(1).ok_or(BtfError::TooMany)?;
            let part = |at| word(entry, at).ok_or(BtfError::Truncated);
            let (name, id, raw) = (part(0)?, part(4)?, part(8)?);
            let (bits, width) = if structure.has_bit_fields() {
                (raw & 0x00ff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            if self.is_named(name, member) {
                if width != 0 || bits % 8 != 0 {
                    return Err(BtfError::BitField(
                        String::from_utf8_lossy(member).into_owned(),
                    ));
                }
                return Ok(Some(bits));
            }
            if !self.is_named(name, b"") || depth == 0 {
                continue;
            }
            if let Some(inner) = self.resolve(id)
                && let Some(inside) = self.find(inner, member, depth - 1, looks)?
            {
                return Ok(bits.checked_add(inside));
            }
        }
        Ok(None)
    }

    /// The structure or union behind a type, through its aliases.
    fn resolve(&self, id: u32) -> Option<&Type<'a>> {
        let mut found = self.of_id(id)?;
        for _ in 0..MAX_DEPTH {
            if matches!(found.kind(), STRUCT | UNION) {
                return Some(found);
            }
            if !ALIASES.contains(&found.kind()) {
                return None;
            }
            found = self.of_id(found.reference)?;
        }
        None
    }
}

/// Bytes that follow a type's fixed part, by kind (kernel include/uapi/linux/btf.h).
fn extra(found: &Type<'_>) -> Result<usize, BtfError> {
    let count = found.count();
    Ok(match found.kind() {
        1 | 14 | 17 => 4,
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        STRUCT | UNION | 15 | 19 => 12 * count,
        6 | 13 => 8 * count,
        kind => return Err(BtfError::Kind(kind)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A structure `s { u32 a; struct { u32 b; }; }`, written by hand.
    fn sample() -> Vec<u8> {
        let strings = b"\0s\0a\0b\0int\0";
        let words: [u32; 26] = [
            7,
            1 << 24,
            4,
            32, // 1: int
            0,
            STRUCT << 24 | 1,
            4,
            5,
            1,
            0, // 2: struct { int b; }
            1,
            STRUCT << 24 | 2,
            8,
            3,
            1,
            0,
            0,
            2,
            32, // 3: s
            0,
            2 << 24,
            3, // 4: pointer to s
            0,
            8 << 24,
            2,
            0, // 5: alias, and one word too many: cut below
        ];
        let types: Vec<u8> = words[..25].iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for w in [
            24,
            0,
            types.len() as u32,
            types.len() as u32,
            strings.len() as u32,
        ] {
            bytes.extend(w.to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_functions_parameters_are_counted() {
        let strings = b"\0f\0g\0";
        let words: [u32; 13] = [
            0,
            FUNC_PROTO << 24 | 2,
            0,
            0,
            0,
            0,
            0, // 1: void (void *, void *)
            1,
            FUNC << 24,
            1, // 2: f, of that kind
            3,
            FUNC << 24,
            2, // 3: g, of none
        ];
        let types: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let length = types.len() as u32;
        for w in [24, 0, length, length, strings.len() as u32] {
            bytes.extend(w.to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.parameters("f"), Some(2));
        assert_eq!(btf.parameters("g"), None);
        assert_eq!(btf.parameters("h"), None);
    }

    #[test]
    fn members_are_found_also_inside_anonymous_ones() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.offset("s", "a"), Ok(0));
        assert_eq!(btf.offset("s", "b"), Ok(4));
        assert!(matches!(
            btf.offset("s", "c"),
            Err(BtfError::NoMember { .. })
        ));
        assert!(matches!(
            btf.offset("t", "a"),
            Err(BtfError::NoStructure(_))
        ));
    }

    #[test]
    fn a_modules_types_and_names_go_on_where_the_kernels_end() {
        let bytes = sample();
        let base = Btf::parse(&bytes).unwrap();
        // A structure `t { struct s; a; }` of the module's: the kernel has four types before, and eleven bytes of strings.
        let strings = b"\0t\0";
        let words: [u32; 9] = [12, STRUCT << 24 | 2, 12, 0, 3, 0, 3, 1, 64];
        let mut module = MAGIC.to_ne_bytes().to_vec();
        module.extend([1, 0]);
        for word in [24, 0, 36, 36, strings.len() as u32].iter().chain(&words) {
            module.extend(word.to_ne_bytes());
        }
        module.extend(strings);
        let btf = Btf::of_module(&base, &module).unwrap();
        assert_eq!(btf.offset("t", "b"), Ok(4));
        assert_eq!(btf.offset("t", "a"), Ok(0));
        let alone = Btf::parse(&module).unwrap();
        let refused = alone.offset("t", "b");
        assert_eq!(refused, Err(BtfError::NoStructure("t".to_owned())));
    }

    #[test]
    fn every_truncation_is_an_error_and_never_a_panic() {
        let bytes = sample();
        for end in 0..bytes.len() {
            let cut = Btf::parse(&bytes[..end]).map(|btf| btf.offset("s", "b"));
            assert_ne!(cut.unwrap_or(Err(BtfError::Header)), Ok(4), "{end}");
        }
    }

    /// BTF of these structures named `s`, each a list of (name, type id) of its members, and the strings `s` at 1, `a` at 3.
    fn structures(each: &[Vec<(u32, u32)>]) -> Vec<u8> {
        let mut types = Vec::new();
        for members in each {
            types.extend([1, STRUCT << 24 | members.len() as u32, 4]);
            types.extend(members.iter().flat_map(|(name, id)| [*name, *id, 0]));
        }
        let strings = b"\0s\0a\0";
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let length = 4 * types.len() as u32;
        for word in [24, 0, length, length, strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(strings);
        bytes
    }

    fn offset(bytes: &[u8], member: &str) -> Result<u32, BtfError> {
        Btf::parse(bytes).unwrap().offset("s", member)
    }

    #[test]
    fn more_bytes_than_are_read_are_refused() {
        let mut bytes = vec![0; MAX_BYTES];
        assert_eq!(Btf::parse(&bytes).unwrap_err(), BtfError::Header);
        bytes.push(0);
        let refused = Btf::parse(&bytes).unwrap_err();
        assert_eq!(refused, BtfError::TooLarge(MAX_BYTES + 1));
    }

    #[test]
    fn anonymous_members_are_looked_into_so_deep_and_no_deeper() {
        // One inside the other, the innermost with the member.
        let nested = |depth: usize| {
            let mut each: Vec<_> = (0..depth as u32).map(|at| vec![(0, at + 2)]).collect();
            each.push(vec![(3, 0)]);
            // Only the outermost is found by its name.
            let mut bytes = structures(&each);
            for at in 1..each.len() {
                bytes[24 + at * 24..][..4].fill(0);
            }
            bytes
        };
        assert_eq!(offset(&nested(MAX_DEPTH), "a"), Ok(0));
        assert!(matches!(
            offset(&nested(MAX_DEPTH + 1), "a"),
            Err(BtfError::NoMember { .. })
        ));
    }

    #[test]
    fn so_many_members_are_looked_at_and_no_more() {
        let full = vec![(1, 0); u16::MAX.into()];
        let left = MAX_LOOKS - full.len();
        let exactly = structures(&[full.clone(), vec![(1, 0); left]]);
        assert!(matches!(
            offset(&exactly, "a"),
            Err(BtfError::NoMember { .. })
        ));
        let more = structures(&[full, vec![(1, 0); left + 1]]);
        assert_eq!(offset(&more, "a"), Err(BtfError::TooMany));
        // One that holds itself many times over ends too.
        let itself = structures(&[vec![(0, 1); 1000]]);
        assert_eq!(offset(&itself, "a"), Err(BtfError::TooMany));
    }
}
