//! From what people asked for to what is decided: workspace ∩ host as one effective policy, with the origin of every
//! entry; lookups that do not slow down with the number of rules; explanations, capability review and differences.
//! Pure: no I/O, no clock. CLI, enforcer and gateway decide by this crate and by nothing else.
#![forbid(unsafe_code)]

pub mod address_class;
mod ceiling;
mod compiled;
pub mod credential;
mod decision;
pub mod difference;
mod effective;
pub mod explain;
mod files;
pub mod inspection;
mod layers;
pub mod merge;
pub mod organisation;
mod programs;
mod requests;
pub mod review;
mod secrets;
pub mod suggest;
pub mod text;
mod trees;

pub use ceiling::{Bound, Ceiling, Listed, MAX_CEILINGS};
pub use compiled::Compiled;
pub use credential::Credential;
pub use decision::{Decision, Denial, DenyReason, Grant, RuleRef};
pub use effective::{
    APPROVAL_SECONDS, Action, DomainRule, EffectivePolicy, Gateway, Layer, MAX_LAYERS,
    MAX_NETWORKS, MAX_POLICY_BYTES, MAX_PORTS_PER_RULE, MAX_RULES, Network, NetworkRule, Origin,
    PolicyError, Rule,
};
pub use explain::explain;
pub use explain::path::{PathExplanation, explain_path};
pub use files::{FileRight, FileRule, Files, MAX_FILE_RULES};
pub use inspection::Inspection;
pub use layers::Layers;
pub use merge::{Granted, effective};
pub use programs::{MAX_PROGRAM_RULES, NotAsked, ProgramRight, ProgramRule, Programs};
pub use requests::{Permit, RequestDenial, RequestRule, RequestRules};
pub use review::Review;
pub use secrets::{Secret, Secrets};
