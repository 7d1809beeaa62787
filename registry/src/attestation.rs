//! What signed statements say of a subject. A statement is only handed out of a [`crate::signature::Report`] that accepted its
//! signer, so nothing here can be asked about an unsigned one.

mod provenance;
mod statement;

pub(crate) use provenance::is_provenance;
pub use provenance::{
    Found, HIGHEST, Provenance, ProvenanceError, Refused, Source, V0_2, V1, provenance,
};
pub use statement::{BYTES, PAYLOAD_TYPE, SUBJECTS, Statement, StatementError};
