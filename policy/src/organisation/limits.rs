//! The limits of a container under ceilings: the workspace's own where it names one, the least of the ceilings where it does not.

use schema::config::Config;
use schema::config::units::{Cpus, MemorySize};
use schema::diag::{Position, Spanned};
use schema::organisation::Organisation;

use super::requirements::keep;
use super::{Said, origin};
use crate::effective::Origin;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    pub memory: Option<Said<MemorySize>>,
    pub cpus: Option<Said<Cpus>>,
    pub pids: Option<Said<u32>>,
}

// === impl Limits ===

impl Limits {
    pub(super) fn of(config: &Config, documents: &[Organisation]) -> Self {
        let own = config.agent.resources();
        let mut out = Self {
            memory: said(&own.memory, &config.file, None),
            cpus: said(&own.cpus, &config.file, None),
            pids: said(&own.pids, &config.file, None),
        };
        for document in documents {
            let most = &document.ceilings.resources;
            let name = Some(document.organisation.as_str());
            least(&mut out.memory, said(&most.memory, &document.file, name));
            least(&mut out.cpus, said(&most.cpus, &document.file, name));
            least(&mut out.pids, said(&most.pids, &document.file, name));
        }
        out
    }

    /// Each that there is, and where it stands.
    pub fn words(&self) -> Vec<(String, &Origin)> {
        let memory = self.memory.as_ref();
        let memory = memory.map(|l| (format!("limit memory {} bytes", l.value), &l.origin));
        let cpus = self.cpus.as_ref();
        let cpus = cpus.map(|l| (format!("limit cpus {}", l.value), &l.origin));
        let pids = self.pids.as_ref();
        let pids = pids.map(|l| (format!("limit pids {}", l.value), &l.origin));
        [memory, cpus, pids].into_iter().flatten().collect()
    }

    /// Writes them into the config that a container is made from. What was reviewed is the config before.
    pub fn apply(&self, config: &mut Config) {
        let own = &mut config.agent.capabilities.resources;
        fn put<T: Copy>(own: &mut Option<Spanned<T>>, limit: &Option<Said<T>>) {
            let Some(limit) = limit else { return };
            let at = own.as_ref().map_or(Position::START, |own| own.at);
            *own = Some(Spanned::new(limit.value, at));
        }
        put(&mut own.memory, &self.memory);
        put(&mut own.cpus, &self.cpus);
        put(&mut own.pids, &self.pids);
    }
}

fn said<T: Copy>(
    value: &Option<Spanned<T>>,
    file: &str,
    organisation: Option<&str>,
) -> Option<Said<T>> {
    let value = value.as_ref()?;
    Some(Said {
        value: value.value,
        organisation: organisation.map(str::to_owned),
        origin: origin(file, value.at),
    })
}

/// The workspace's own stands where it is within: only a lower one takes its place.
fn least<T: PartialOrd>(own: &mut Option<Said<T>>, most: Option<Said<T>>) {
    let workspaces = own.as_ref().is_some_and(|own| own.organisation.is_none());
    match (own.as_ref(), &most) {
        (Some(own), Some(most)) if workspaces && own.value <= most.value => {}
        _ => keep(own, most, |new, old| new < old),
    }
}
