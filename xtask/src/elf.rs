//! The little of ELF64 that the tasks check: is a binary static and stripped, which programs and maps an object has.

use anyhow::{Context, Result, ensure};

/// An ELF64 little-endian file.
pub struct Elf<'a> {
    bytes: &'a [u8],
}

const PT_INTERP: u64 = 3;
const SHT_SYMTAB: u64 = 2;

struct Section {
    name: u64,
    kind: u64,
    offset: u64,
    size: u64,
    link: u64,
}

impl<'a> Elf<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        ensure!(
            bytes.starts_with(b"\x7fELF\x02\x01"),
            "not a 64-bit little-endian ELF file"
        );
        Ok(Self { bytes })
    }

    /// Whether it names a program interpreter, that is: is linked dynamically.
    pub fn has_interpreter(&self) -> Result<bool> {
        let (start, size, count) = (
            self.number(32, 8)?,
            self.number(54, 2)?,
            self.number(56, 2)?,
        );
        for index in 0..count {
            if self.number(start + index * size, 4)? == PT_INTERP {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether there is no symbol table.
    pub fn is_stripped(&self) -> Result<bool> {
        Ok(self
            .sections()?
            .iter()
            .all(|section| section.kind != SHT_SYMTAB))
    }

    /// Every named global symbol with the section that it is in, as `section:symbol`, sorted.
    pub fn globals(&self) -> Result<Vec<String>> {
        let sections = self.sections()?;
        let names = sections
            .get(self.number(62, 2)? as usize)
            .context("no section names")?
            .offset;
        let mut found = Vec::new();
        for table in sections.iter().filter(|section| section.kind == SHT_SYMTAB) {
            let strings = sections
                .get(table.link as usize)
                .context("no symbol names")?
                .offset;
            for at in (table.offset..table.offset + table.size).step_by(24) {
                let (name, info, section) = (
                    self.number(at, 4)?,
                    self.number(at + 4, 1)?,
                    self.number(at + 6, 2)?,
                );
                let Some(section) = sections.get(section as usize) else {
                    continue;
                };
                if info >> 4 == 1 && name != 0 {
                    found.push(format!(
                        "{}:{}",
                        self.text(names + section.name)?,
                        self.text(strings + name)?
                    ));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn sections(&self) -> Result<Vec<Section>> {
        let (start, size, count) = (
            self.number(40, 8)?,
            self.number(58, 2)?,
            self.number(60, 2)?,
        );
        (0..count)
            .map(|index| {
                let at = start + index * size;
                Ok(Section {
                    name: self.number(at, 4)?,
                    kind: self.number(at + 4, 4)?,
                    offset: self.number(at + 24, 8)?,
                    size: self.number(at + 32, 8)?,
                    link: self.number(at + 40, 4)?,
                })
            })
            .collect()
    }

    fn number(&self, at: u64, bytes: usize) -> Result<u64> {
        let at = usize::try_from(at)?;
        let field = self
            .bytes
            .get(at..at + bytes)
            .context("the ELF file is cut short")?;
        Ok(field
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn text(&self, at: u64) -> Result<String> {
        let rest = self
            .bytes
            .get(usize::try_from(at)?..)
            .context("the ELF file is cut short")?;
        let end = rest
            .iter()
            .position(|byte| *byte == 0)
            .context("an ELF string has no end")?;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }
}
