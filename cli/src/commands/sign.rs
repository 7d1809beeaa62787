//! `agentcontainer sign` and `attest`: puts a signature, or a statement about it, beside what a reference names.

use std::path::PathBuf;

use registry::attestation;
use registry::publish::Kind;
use schema::image::ImageRef;
use serde_json::json;

use super::json;
use crate::files;
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
    /// A private key: PKCS#8 (PEM), or one that cosign made, whose password is taken from COSIGN_PASSWORD or asked for
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
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
    key: PathBuf,
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
    let key = signing::key(&args.key)?;
    let client = registries::client(&Places::from_env()?, &loaded::host()?, false)?;
    let target = signing::target(&client, &reference).await?;
    let signed = registry::sign::image(&key, &target.digest, &target.repository.to_string())
        .map_err(signing::refused)?;
    let referring = signing::publish(&client, &target, Kind::Signature, &signed).await?;
    said(as_json, "signed", &target, &key, &referring);
    Ok(0)
}

pub async fn attest(args: AttestArgs) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let reference = parsed(&args.reference)?;
    let kind = predicate_type(&args.kind)?;
    let predicate = files::named(&args.predicate, attestation::BYTES)?;
    let key = signing::key(&args.key)?;
    let client = registries::client(&Places::from_env()?, &loaded::host()?, false)?;
    let target = signing::target(&client, &reference).await?;
    let name = target.repository.to_string();
    let signed = registry::sign::attest(&key, &target.digest, &name, kind, &predicate)
        .map_err(signing::refused)?;
    let referring = signing::publish(&client, &target, Kind::Attestation, &signed).await?;
    said(as_json, "attested", &target, &key, &referring);
    Ok(0)
}

fn said(
    as_json: bool,
    what: &str,
    target: &registry::publish::Target,
    key: &registry::sign::SigningKey,
    referring: &schema::digest::Digest,
) {
    let subject = target.repository.at(&target.digest);
    if as_json {
        report::out_json(&json!({ "subject": subject, "key": key.id(), "referrer": referring }));
    } else {
        report::out(format!(
            "{what} {} with the key {}",
            escape(&subject),
            key.id()
        ));
    }
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
