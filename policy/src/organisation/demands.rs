//! What a feature demands of the container, against what documents allow: known once the feature is there, which is after the
//! config was held to them. What would unmake the sandbox is refused before, whatever a document says.

use schema::config::mount::Source;
use schema::diag::{Diagnostic, Place};
use schema::feature::Demands;
use schema::organisation::{MountKind, Organisation};

use super::{Found, asked, few};

pub fn check(documents: &[Organisation], demands: &Demands, place: &Place) -> Vec<Diagnostic> {
    let mut found = Found::default();
    for document in documents {
        mounts(document, demands, place, &mut found);
        for name in demands.local_env() {
            let whose = ", a feature's demand,";
            asked::host_variable(document, name, whose, place, &mut found);
        }
    }
    found.finish()
}

fn mounts(document: &Organisation, demands: &Demands, place: &Place, found: &mut Found) {
    let Some(allowed) = &document.ceilings.mounts else {
        return;
    };
    for mount in &demands.mounts {
        let kind = kind(&mount.source);
        if allowed.iter().any(|own| own.value == kind) {
            continue;
        }
        let words = few(allowed.iter().map(|own| own.value.to_string()));
        let what = format!("mount {mount}, which is of kind {kind} and a feature's demand,");
        found.beyond(
            place,
            &what,
            document,
            "ceilings.mounts",
            allowed.at,
            &words,
        );
    }
}

/// What a source is called in policies.
pub(super) fn kind(source: &Source) -> MountKind {
    match source {
        Source::Workspace { .. } => MountKind::Workspace,
        Source::Volume { .. } => MountKind::Volume,
        Source::Tmpfs { .. } => MountKind::Tmpfs,
    }
}
