//! What signed statements say of a subject. A statement is only handed out of a [`crate::signature::Report`] that accepted its
//! signer, so nothing here can be asked about an unsigned one.

mod statement;

pub use statement::{BYTES, PAYLOAD_TYPE, SUBJECTS, Statement, StatementError};

/// Whether a predicate's type is SLSA's provenance, in a version that is read here.
pub(crate) fn is_provenance(predicate_type: &str) -> bool {
    [
        "https://slsa.dev/provenance/v0.2",
        "https://slsa.dev/provenance/v1",
    ]
    .contains(&predicate_type)
}
