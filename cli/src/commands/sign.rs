//! `agentcontainer sign` and `attest`: puts a signature, or a statement about it, beside what a reference names.

use std::path::{Path, PathBuf};

use registry::attestation;
use registry::publish::{Kind, Target};
use registry::sign::SigningKey;
use registry::sign::keyless::Keyless;
use schema::digest::Digest;
use schema::image::ImageRef;
use serde_json::json;

use super::json;
use crate::files;
use crate::keyless;
use crate::loaded;
use crate::places::Places;
use crate::registries;
use crate::report::{self, Failure, escape};
use crate::signing;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to sign, such as ghcr.io/acme/agent:1; what its tag names now is signed by digest
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// A private key: PKCS#8 (PEM), or one that cosign made, whose password is taken from COSIGN_PASSWORD or asked for; without it an
    /// identity signs, by certificate
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    keyless: keyless::Args,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct AttestArgs {
    /// What the statement is about
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// A private key, as for `sign`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    keyless: keyless::Args,
    /// What kind of statement: slsaprovenance1, slsaprovenance, spdx, cyclonedx, or the URI of another
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// The statement's predicate: the provenance or the inventory, as JSON
    #[arg(long, value_name = "FILE")]
    predicate: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let reference = parsed(&args.reference)?;
    let key = key(args.key.as_deref())?;
    let host = loaded::host()?;
    let client = registries::client(&Places::from_env()?, &host, false)?;
    let target = signing::target(&client, &reference).await?;
    let Some(key) = key else {
        let signer = keyless::signer(&args.keyless, &host, &target.digest).await?;
        let made = signer.image(&target.digest).await;
        let made = made.map_err(keyless::refused)?;
        let referring = signing::publish_made(&client, &target, &made).await?;
        said(
            as_json,
            "signed",
            &target,
            &By::identity(&signer),
            &referring,
        );
        return Ok(0);
    };
    let signed = registry::sign::image(&key, &target.digest, &target.repository.to_string())
        .map_err(signing::refused)?;
    let referring = signing::publish(&client, &target, Kind::Signature, &signed).await?;
    said(as_json, "signed", &target, &By::Key(key.id()), &referring);
    Ok(0)
}

pub async fn attest(args: AttestArgs) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let reference = parsed(&args.reference)?;
    let kind = predicate_type(&args.kind)?;
    let predicate = files::named(&args.predicate, attestation::BYTES)?;
    let key = key(args.key.as_deref())?;
    let host = loaded::host()?;
    let client = registries::client(&Places::from_env()?, &host, false)?;
    let target = signing::target(&client, &reference).await?;
    let name = target.repository.to_string();
    let Some(key) = key else {
        let signer = keyless::signer(&args.keyless, &host, &target.digest).await?;
        let made = signer.attest(&target.digest, &name, kind, &predicate).await;
        let made = made.map_err(keyless::refused)?;
        let referring = signing::publish_made(&client, &target, &made).await?;
        said(
            as_json,
            "attested",
            &target,
            &By::identity(&signer),
            &referring,
        );
        return Ok(0);
    };
    let signed = registry::sign::attest(&key, &target.digest, &name, kind, &predicate)
        .map_err(signing::refused)?;
    let referring = signing::publish(&client, &target, Kind::Attestation, &signed).await?;
    said(as_json, "attested", &target, &By::Key(key.id()), &referring);
    Ok(0)
}

fn key(path: Option<&Path>) -> Result<Option<SigningKey>, Failure> {
    path.map(signing::key).transpose()
}

/// Who signed.
enum By {
    Key(Digest),
    Identity { subject: String, issuer: String },
}

impl By {
    fn identity(signer: &Keyless) -> Self {
        Self::Identity {
            subject: signer.identity().subject().to_owned(),
            issuer: signer.identity().issuer().to_owned(),
        }
    }
}

fn said(as_json: bool, what: &str, target: &Target, by: &By, referring: &Digest) {
    let subject = target.repository.at(&target.digest);
    if as_json {
        let mut out = json!({ "subject": subject, "referrer": referring });
        match by {
            By::Key(id) => out["key"] = json!(id),
            By::Identity { subject, issuer } => {
                out["identity"] = json!({ "subject": subject, "issuer": issuer });
            }
        }
        report::out_json(&out);
        return;
    }
    let by = match by {
        By::Key(id) => format!("with the key {id}"),
        By::Identity { subject, issuer } => {
            format!("as {} (by {})", escape(subject), escape(issuer))
        }
    };
    report::out(format!("{what} {} {by}", escape(&subject)));
}

fn parsed(text: &str) -> Result<ImageRef, Failure> {
    ImageRef::parse(text).map_err(|e| Failure::new("reference", format!("{text}: {e}")))
}

/// cosign's short names, or a URI as it is.
fn predicate_type(text: &str) -> Result<&str, Failure> {
    Ok(match text {
        "slsaprovenance1" => attestation::V1,
        "slsaprovenance" | "slsaprovenance02" => attestation::V0_2,
        "spdx" | "spdxjson" => "https://spdx.dev/Document",
        "cyclonedx" => "https://cyclonedx.org/bom",
        uri if uri.starts_with("https://") && uri.len() <= 1024 => uri,
        other => {
            return Err(Failure::new(
                "predicate-type",
                format!("{other:?} is no kind of statement"),
            )
            .help(
                "slsaprovenance1, slsaprovenance, spdx, cyclonedx, or the https URI of another",
            ));
        }
    })
}
