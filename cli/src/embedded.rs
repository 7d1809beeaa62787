//! The sidecar that build.rs embedded, as the engine room wants it. A program built without it says what to build.

use engine::sidecar::Embedded;
use schema::diag::Diagnostic;
use schema::digest::Digest;

use crate::report::Failure;

/// What build.rs writes.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub archive: &'static [u8],
    pub id: &'static str,
    pub enforcer: &'static str,
    pub gateway: &'static str,
    pub init: &'static str,
}

mod generated {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// The embedded sidecar.
pub fn sidecar() -> Result<Embedded, Failure> {
    let missing = || {
        Failure::from(
            Diagnostic::new(
                "enforcer-not-embedded",
                "this agentcontainer was built without its enforcer, gateway and init",
            )
            .help("build it with `cargo xtask dist` and run target/dist/agentcontainer"),
        )
    };
    let parts = generated::EMBEDDED.ok_or_else(missing)?;
    let digest = |hex: &str| Digest::parse(&format!("sha256:{hex}")).map_err(|_| missing());
    Ok(Embedded {
        archive: parts.archive,
        id: digest(parts.id)?,
        enforcer: digest(parts.enforcer)?,
        gateway: digest(parts.gateway)?,
        init: digest(parts.init)?,
    })
}
