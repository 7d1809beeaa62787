//! Values of credentials on the host: fetched from where the host's config says, held in memory that is wiped, shown nowhere,
//! and the placeholders that stand for them inside a container. Called by the CLI, and by nothing that runs inside.
#![forbid(unsafe_code)]

mod https;
mod placeholder;
mod source;
mod value;

pub use https::{HttpsError, MAX_ANSWER_BYTES};
pub use placeholder::{KEY_BYTES, MIN_RANDOM, PlaceholderError, Seed, placeholder};
pub use source::{EXEC_DEADLINE, Host, Input, MAX_STDERR_BYTES, SourceError, fetch};
pub use value::{Fetched, MAX_VALUE_BYTES, MIN_VALUE_BYTES, Secret, ValueError};
