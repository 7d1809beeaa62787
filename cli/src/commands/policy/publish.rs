//! `agentcontainer policy push|sign|pull`: an organisation's policy into a registry and out of one.

use std::path::PathBuf;

use registry::client::{Client, Repository};
use registry::publish::Kind;
use registry::sign::SigningKey;
use schema::digest::Digest;
use schema::image::OciSource;
use schema::organisation::{ARTIFACT_TYPE, MAX_FILE_BYTES, NotCurrent};
use serde_json::json;

use super::super::json;
use super::document;
use crate::files;
use crate::loaded;
use crate::organisation::{self, Refreshed};
use crate::places::Places;
use crate::registries;
use crate::report::{self, Failure, escape};
use crate::signing;

#[derive(Debug, clap::Args)]
pub struct Push {
    /// The document
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to: oci://REGISTRY/REPOSITORY:TAG
    #[arg(value_name = "SOURCE")]
    source: OciSource,
    /// Sign it with this private key, as `policy sign` does
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Also in place of a document whose serial is as high
    #[arg(long)]
    force: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Sign {
    /// What to sign: oci://REGISTRY/REPOSITORY:TAG, or with @sha256:…
    #[arg(value_name = "SOURCE")]
    source: OciSource,
    /// A private key: PKCS#8 (PEM), or one that cosign made
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct Pull {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Puts a document that holds under a tag, and signs it.
pub async fn push(args: &Push) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let Some(tag) = args.source.reference().tag() else {
        return Err(Failure::new(
            "source",
            format!("{} names no tag to put it under", args.source),
        ));
    };
    let bytes = files::named(&args.file, MAX_FILE_BYTES)?;
    let document = document::read(&args.file, report::OURS)?;
    match document.check(jiff::Timestamp::now(), None) {
        Ok(()) | Err(NotCurrent::NotYet { .. }) => {}
        Err(error) => return Err(Failure::new(error.code(), error.to_string())),
    }
    let key = args.key.as_deref().map(signing::key).transpose()?;
    let client = registries::client(&Places::from_env()?, &loaded::host()?, false)?;
    let repository = Repository::of(args.source.reference());
    if !args.force {
        refuse_to_go_back(
            &client,
            &args.source,
            &repository,
            tag,
            document.serial.value,
        )
        .await?;
    }
    let annotations = json!({
        "org.opencontainers.image.title": document.organisation.value.to_string(),
        "dev.agentcontainer.policy.serial": document.serial.value.to_string(),
    });
    let digest = client
        .push_artifact(&repository, tag, ARTIFACT_TYPE, &annotations, &bytes)
        .await?;
    let signed = match &key {
        Some(key) => Some(signed(&client, key, &repository, &digest).await?),
        None => None,
    };
    if as_json {
        report::out_json(
            &json!({ "source": args.source.to_string(), "digest": digest, "key": signed }),
        );
    } else {
        report::out(format!(
            "{}  serial {}  {digest}",
            args.source, document.serial.value
        ));
        if signed.is_none() {
            report::note(format!(
                "no host that names it believes it before it is signed: agentcontainer policy sign {} --key FILE, or by identity agentcontainer sign {}",
                args.source,
                args.source.reference().as_str()
            ));
        }
    }
    Ok(0)
}

/// A host that saw the one there would refuse another with the same serial, or a lower one.
async fn refuse_to_go_back(
    client: &Client,
    source: &OciSource,
    repository: &Repository,
    tag: &str,
    serial: u64,
) -> Result<(), Failure> {
    let Some(there) = client.tag(repository, tag).await? else {
        return Ok(());
    };
    let bytes = client
        .artifact(
            repository,
            &there.digest,
            ARTIFACT_TYPE,
            MAX_FILE_BYTES as u64,
        )
        .await
        .map_err(|e| Failure::from(e).help("--force puts the policy in its place"))?;
    let there = schema::organisation::parse(&bytes, &source.to_string())?;
    if there.serial.value >= serial {
        return Err(Failure::new(
            "policy-serial",
            format!("{source} has serial {} already, and hosts go on to higher ones alone; this one has {serial}", there.serial.value),
        )
        .help("raise `serial`"));
    }
    Ok(())
}

pub async fn sign(args: &Sign) -> Result<u8, Failure> {
    let key = signing::key(&args.key)?;
    let client = registries::client(&Places::from_env()?, &loaded::host()?, false)?;
    let target = signing::target(&client, args.source.reference()).await?;
    // Not anything that happens to lie there.
    client
        .artifact(
            &target.repository,
            &target.digest,
            ARTIFACT_TYPE,
            MAX_FILE_BYTES as u64,
        )
        .await?;
    let id = signed(&client, &key, &target.repository, &target.digest).await?;
    report::out(format!(
        "signed {} with the key {id}",
        escape(&target.repository.at(&target.digest))
    ));
    Ok(0)
}

async fn signed(
    client: &Client,
    key: &SigningKey,
    repository: &Repository,
    digest: &Digest,
) -> Result<Digest, Failure> {
    let target = client.target(repository, digest).await?;
    let signed =
        registry::sign::image(key, digest, &repository.to_string()).map_err(signing::refused)?;
    signing::publish(client, &target, Kind::Signature, &signed).await?;
    Ok(key.id())
}

/// Fetches what the host's config names, and believes it if it holds.
pub async fn pull(args: &Pull) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let (places, host) = (Places::from_env()?, loaded::host()?);
    if host.policy.is_empty() {
        return Err(Failure::new("no-policy", "config.toml names no policy")
            .help("[policy] with `source`, and `keys` or `identities`"));
    }
    let mut shown = Vec::new();
    for policy in &host.policy {
        let source = &policy.value.source;
        match organisation::refresh(&places, &host, policy).await? {
            Refreshed::Now(document, digest) => {
                if !as_json {
                    report::out(format!(
                        "{source}  the policy of {}, serial {}, until {}  {digest}",
                        escape(&document.organisation.value.to_string()),
                        document.serial.value,
                        document.not_after.value
                    ));
                }
                shown.push(json!({
                    "source": source.to_string(),
                    "digest": digest,
                    "organisation": document.organisation,
                    "serial": document.serial,
                    "notAfter": document.not_after,
                }));
            }
            Refreshed::Kept(why) => {
                return Err(
                    Failure::new("registry-unreachable", format!("{source}: {why}"))
                        .help("the last one that was fetched holds until its end"),
                );
            }
        }
    }
    if as_json {
        report::out_json(&shown);
    }
    Ok(0)
}
