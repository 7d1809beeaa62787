//! The session's synthetic addresses: a name gets one the first time it is asked for and keeps it as long as the session
//! lives. The table is bounded, by kind, so that names an agent makes up cannot crowd out those that policy names.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use enforcer_common::{POOL_FIRST, POOL_MASK};
use schema::host::HostName;

/// Names under allowed wildcards, and names that policy does not know: most of each a session gives addresses to.
/// Names that policy lists exactly are bounded by the policy's own size.
pub const MAX_WILDCARD: usize = 4096;
pub const MAX_UNLISTED: usize = 4096;

/// How policy knows a name, for the bounds only: what it may do is decided elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Exactly,
    ByWildcard,
    Not,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no synthetic address is left for more names of this kind")]
pub struct Exhausted;

#[derive(Debug, Default)]
pub struct Names {
    by_name: HashMap<HostName, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, HostName>,
    wildcard: usize,
    unlisted: usize,
}

impl Names {
    pub fn address(&self, name: &HostName) -> Option<Ipv4Addr> {
        self.by_name.get(name).copied()
    }

    pub fn name(&self, address: Ipv4Addr) -> Option<&HostName> {
        self.by_address.get(&address)
    }

    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&HostName, Ipv4Addr)> {
        self.by_name.iter().map(|(name, address)| (name, *address))
    }

    /// The address for a name that has none yet, not entered before [`Names::insert`] is called with it.
    pub fn free(&self, known: Known) -> Result<Ipv4Addr, Exhausted> {
        match known {
            Known::ByWildcard if self.wildcard >= MAX_WILDCARD => return Err(Exhausted),
            Known::Not if self.unlisted >= MAX_UNLISTED => return Err(Exhausted),
            _ => {}
        }
        // Names are never taken out, so the next address is the count.
        let next = POOL_FIRST + u32::try_from(self.by_name.len()).map_err(|_| Exhausted)?;
        if next & POOL_MASK != POOL_FIRST & POOL_MASK {
            return Err(Exhausted);
        }
        Ok(Ipv4Addr::from(next))
    }

    pub fn insert(&mut self, name: HostName, address: Ipv4Addr, known: Known) {
        match known {
            Known::ByWildcard => self.wildcard += 1,
            Known::Not => self.unlisted += 1,
            Known::Exactly => {}
        }
        self.by_address.insert(address, name.clone());
        self.by_name.insert(name, address);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fill(names: &mut Names, prefix: &str, count: usize, known: Known) {
        for i in 0..count {
            let name = HostName::parse(&format!("{prefix}{i}.example.com")).unwrap();
            let address = names.free(known).unwrap();
            names.insert(name, address, known);
        }
    }

    #[test]
    fn names_an_agent_makes_up_are_bounded_and_do_not_crowd_out_policys() {
        let mut names = Names::default();
        fill(&mut names, "junk", MAX_UNLISTED, Known::Not);
        assert_eq!(names.free(Known::Not), Err(Exhausted));
        fill(&mut names, "w", MAX_WILDCARD, Known::ByWildcard);
        assert_eq!(names.free(Known::ByWildcard), Err(Exhausted));
        fill(&mut names, "listed", 10_000, Known::Exactly);
        assert_eq!(names.len(), MAX_UNLISTED + MAX_WILDCARD + 10_000);
    }

    #[test]
    fn an_address_belongs_to_one_name_and_lies_in_the_pool() {
        let mut names = Names::default();
        fill(&mut names, "a", 500, Known::Exactly);
        let mut seen = std::collections::HashSet::new();
        for (name, address) in names.iter() {
            assert!(seen.insert(address));
            assert_eq!(names.name(address), Some(name));
            assert_eq!(u32::from(address) & POOL_MASK, POOL_FIRST & POOL_MASK);
        }
    }
}
