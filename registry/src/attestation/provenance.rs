//! SLSA provenance, v0.2 and v1: which builder made a thing, from what source, and how far that is proven. A level is what the
//! *signer* proves, read from certificate or key; what the predicate says of itself can lower it, never raise it.
//! <https://slsa.dev/spec/v1.0/levels>

use schema::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sigstore_crypto::FulcioCiClaims;
use thiserror::Error;

use super::StatementError;
use crate::signature::{Attested, Report, Signer};

/// The highest level of the build track.
pub const HIGHEST: u8 = 3;

pub const V0_2: &str = "https://slsa.dev/provenance/v0.2";
pub const V1: &str = "https://slsa.dev/provenance/v1";
const GITHUB: &str = "https://token.actions.githubusercontent.com";
/// How GitHub's own runners name themselves where the builder is said to be the runner and not the workflow (npm does).
const RUNNERS: &str = "https://github.com/actions/runner";
/// Workflows whose isolation is known: the part before their name, and the end of it.
const GENERATOR: &str =
    "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/";

/// Whether a predicate's type is SLSA's provenance, in a version that is read here.
pub(crate) fn is_provenance(predicate_type: &str) -> bool {
    [V0_2, V1].contains(&predicate_type)
}

/// What one statement proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    pub level: u8,
    /// Who signed it: the identity in the certificate, or the key's digest.
    pub builder: String,
    /// What the statement calls its builder; proven only as far as the level says.
    pub builder_id: String,
    pub build_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The digest of the bundle or envelope.
    pub from: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    pub repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The certificate says so, and not the statement alone.
    pub proven: bool,
}

#[derive(Debug, Error)]
pub enum ProvenanceError {
    #[error(transparent)]
    Statement(#[from] StatementError),
    #[error("the statement's builder is {claimed:?}, and it was signed by {proven:?}")]
    Builder { claimed: String, proven: String },
    #[error("the statement's source is {claimed:?}, and the certificate's is {proven:?}")]
    Source { claimed: String, proven: String },
}

/// All provenance of one subject: the best, and what was wrong with others.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<Provenance>,
    pub refused: Vec<Refused>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    pub from: Digest,
    pub why: String,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct First {
    builder: Named,
    build_type: String,
    #[serde(default)]
    invocation: Option<Invocation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    #[serde(default)]
    config_source: Option<Material>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Second {
    build_definition: Definition,
    run_details: Details,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    build_type: String,
    #[serde(default)]
    external_parameters: Value,
}

#[derive(Deserialize)]
struct Details {
    builder: Named,
}

#[derive(Deserialize)]
struct Material {
    #[serde(default)]
    uri: Option<String>,
}

/// What both versions say, in one form.
struct Claimed {
    builder: String,
    build_type: String,
    repository: Option<String>,
}

/// What a report's accepted statements prove.
pub fn provenance(report: &Report) -> Found {
    let mut found = Found::default();
    for attested in report.attestations() {
        if !is_provenance(attested.statement.predicate_type()) {
            continue;
        }
        match of(attested) {
            Ok(one)
                if found
                    .best
                    .as_ref()
                    .is_none_or(|best| best.level < one.level) =>
            {
                found.best = Some(one);
            }
            Ok(_) => {}
            Err(error) => found.refused.push(Refused {
                from: attested.from,
                why: schema::diag::escape(&error.to_string()),
            }),
        }
    }
    found
}

/// # Errors
/// [`ProvenanceError`] where the predicate is not what its type says, or contradicts the one who signed it.
fn of(attested: Attested<'_>) -> Result<Provenance, ProvenanceError> {
    let claimed = claimed(attested)?;
    let (builder, level, source) = match &attested.proof.signer {
        Signer::Key { id } => (id.to_string(), 1, None),
        Signer::Identity {
            subject,
            issuer,
            claims,
            ..
        } => {
            let source = proven_source(claims);
            if let (Some(source), Some(claimed)) = (&source, &claimed.repository)
                && !same_repository(&source.repository, claimed)
            {
                return Err(ProvenanceError::Source {
                    claimed: claimed.clone(),
                    proven: source.repository.clone(),
                });
            }
            // Of other builders nothing is known: theirs is provenance, and no more.
            let level = if issuer == GITHUB {
                github(subject, claims, &claimed.builder)?
            } else {
                1
            };
            (subject.clone(), level, source)
        }
    };
    let source = source.or_else(|| {
        claimed.repository.map(|repository| Source {
            repository,
            commit: None,
            reference: None,
            proven: false,
        })
    });
    Ok(Provenance {
        level,
        builder,
        builder_id: claimed.builder,
        build_type: claimed.build_type,
        source,
        from: attested.from,
    })
}

fn claimed(attested: Attested<'_>) -> Result<Claimed, StatementError> {
    if attested.statement.predicate_type() == V0_2 {
        let first: First = attested.statement.predicate()?;
        return Ok(Claimed {
            builder: first.builder.id,
            build_type: first.build_type,
            repository: first
                .invocation
                .and_then(|invocation| invocation.config_source?.uri),
        });
    }
    let second: Second = attested.statement.predicate()?;
    let definition = second.build_definition;
    let repository = definition
        .external_parameters
        .pointer("/workflow/repository")
        .and_then(Value::as_str)
        .map(str::to_owned);
    Ok(Claimed {
        builder: second.run_details.builder.id,
        build_type: definition.build_type,
        repository,
    })
}

/// GitHub's runners: the level of the workflow that the certificate names, where the statement names the same one.
fn github(subject: &str, claims: &FulcioCiClaims, claimed: &str) -> Result<u8, ProvenanceError> {
    let hosted = claims.runner_environment.as_deref() == Some("github-hosted");
    let workflow = claims.build_signer_uri.as_deref().unwrap_or(subject);
    let runner = claimed == RUNNERS
        || claimed
            .strip_prefix(RUNNERS)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|kind| Some(kind) == claims.runner_environment.as_deref());
    if claimed != workflow && !runner {
        return Err(ProvenanceError::Builder {
            claimed: claimed.to_owned(),
            proven: workflow.to_owned(),
        });
    }
    Ok(match (hosted, isolated(workflow)) {
        (true, true) if claimed == workflow => HIGHEST,
        (true, _) => 2,
        (false, _) => 1,
    })
}

/// A released workflow of the SLSA generator.
fn isolated(workflow: &str) -> bool {
    workflow
        .strip_prefix(GENERATOR)
        .and_then(|rest| rest.split_once("@refs/tags/v"))
        .is_some_and(|(name, version)| {
            name.ends_with("_slsa3.yml")
                && !name.contains('/')
                && version.starts_with(|first: char| first.is_ascii_digit())
        })
}

fn proven_source(claims: &FulcioCiClaims) -> Option<Source> {
    Some(Source {
        repository: claims.source_repository_uri.clone()?,
        commit: claims.source_repository_digest.clone(),
        reference: claims.source_repository_ref.clone(),
        proven: true,
    })
}

/// `git+https://host/org/repo@ref` and `https://host/org/repo.git` are `https://host/org/repo`.
fn same_repository(proven: &str, claimed: &str) -> bool {
    let plain = |text: &str| {
        let text = text.strip_prefix("git+").unwrap_or(text);
        let text = text.split_once('@').map_or(text, |(before, _)| before);
        let text = text.strip_suffix('/').unwrap_or(text);
        text.strip_suffix(".git")
            .unwrap_or(text)
            .to_ascii_lowercase()
    };
    plain(proven) == plain(claimed)
}

// === impl Found ===

impl Found {
    /// Whether the best is of at least this level; any provenance at all is of the first.
    pub fn reaches(&self, level: u8) -> bool {
        self.best.as_ref().is_some_and(|best| best.level >= level)
    }
}

#[cfg(test)]
#[path = "provenance/tests.rs"]
mod tests;
