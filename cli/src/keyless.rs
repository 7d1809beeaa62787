//! `sign` and `attest` without a key: whose identity, certified where, and a person's yes before anything of it is made public for good.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use registry::sign::keyless::{
    CONFIG_BYTES, Identity, Keyless, KeylessError, Services, TOKEN_BYTES, Token,
};
use registry::sign::oidc;
use schema::digest::Digest;
use schema::hostconfig::HostConfig;

use crate::files;
use crate::report::{self, Failure, escape};
use crate::{roots, trust};

/// Where a token is looked for that nobody named, as cosign does.
const TOKEN: &str = "SIGSTORE_ID_TOKEN";
/// What GitHub's runners set where a workflow may have one (`permissions: id-token: write`).
const WORKFLOW: [&str; 2] = [
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
];

#[derive(Debug, clap::Args)]
#[group(id = "keyless")]
pub struct Args {
    /// Without --key: the identity token (JWT) to sign with, from a file or, with `-`, from standard input
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    identity_token: Option<PathBuf>,
    /// Who a person gets a token from in a browser; Sigstore's unless said
    #[arg(long, value_name = "URL", conflicts_with_all = ["key", "identity_token"])]
    oidc_issuer: Option<String>,
    /// What this program is called there
    #[arg(
        long,
        value_name = "ID",
        default_value = "sigstore",
        conflicts_with = "key"
    )]
    oidc_client_id: String,
    /// Who the token has to be for, where the authority is not Sigstore's public one; `sigstore` lets it have one that is for that
    #[arg(long, value_name = "NAME", conflicts_with = "key")]
    token_audience: Option<String>,
    /// Who certifies the identity, in place of Sigstore's public authority
    #[arg(long, value_name = "URL", requires = "rekor_url", conflicts_with_all = ["key", "signing_config"])]
    fulcio_url: Option<String>,
    /// The log that it is noted in
    #[arg(long, value_name = "URL", requires = "fulcio_url", conflicts_with_all = ["key", "signing_config"])]
    rekor_url: Option<String>,
    /// Who says when it was signed (RFC 3161)
    #[arg(long, value_name = "URL", requires = "fulcio_url")]
    timestamp_url: Option<String>,
    /// All of these from a file (signing_config.json)
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    signing_config: Option<PathBuf>,
    /// Agree without being asked that the identity is made public for good
    #[arg(long)]
    yes: bool,
}

/// Who signs `subject`, agreed to.
pub async fn signer(args: &Args, host: &HostConfig, subject: &Digest) -> Result<Keyless, Failure> {
    let roots = roots::if_any(host)?;
    let services = services(args)?;
    let token = token(args, &services, &roots).await?;
    let identity = Identity::from_token(&token, Timestamp::now()).map_err(refused)?;
    let audience = args.token_audience.as_deref();
    let keyless = Keyless::new(services.clone(), identity, audience, &roots).map_err(refused)?;
    agree(args, &services, keyless.identity(), subject)?;
    Ok(keyless)
}

pub fn refused(error: KeylessError) -> Failure {
    let code = match error {
        KeylessError::Service(_) => "signing-service",
        KeylessError::Address(_) | KeylessError::Config(_) => "signing-config",
        KeylessError::Setup(_) => "https-setup",
        KeylessError::Sign(_) => "sign",
        _ => "identity-token",
    };
    let failure = Failure::new(code, error.to_string());
    match error {
        KeylessError::PublicAudience(_) => failure.help(
            "have one made for that authority (a person's with another --oidc-client-id); `--token-audience sigstore` sends it all the same",
        ),
        _ => failure,
    }
}

fn services(args: &Args) -> Result<Services, Failure> {
    match (&args.signing_config, &args.fulcio_url, &args.rekor_url) {
        (Some(path), ..) => Services::from_config(&files::named(path, CONFIG_BYTES)?),
        (None, Some(fulcio), Some(rekor)) => {
            Services::chosen(fulcio, rekor, args.timestamp_url.as_deref())
        }
        _ => Services::public_good(),
    }
    .map_err(refused)
}

async fn token(args: &Args, services: &Services, roots: &[Vec<u8>]) -> Result<Token, Failure> {
    if let Some(path) = &args.identity_token {
        return read(path);
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if args.oidc_issuer.is_none() {
        if let Some(token) = set(TOKEN) {
            return Ok(Token::new(token));
        }
        if let [Some(url), Some(bearer)] = WORKFLOW.map(set) {
            let audience = args.token_audience.as_deref();
            let audience = audience.unwrap_or_else(|| services.audience());
            return oidc::of_workflow(roots, &url, &bearer, audience)
                .await
                .map_err(refused);
        }
    }
    let nobody =
        || {
            Failure::new(
            "identity-token",
            "there is no identity to sign with: no token, no workflow's, and nobody at a terminal",
        )
        .help(format!("name a token with --identity-token or {TOKEN}, or sign with --key"))
        };
    if !report::stderr_is_terminal() {
        return Err(nobody());
    }
    let issuer = args
        .oidc_issuer
        .as_deref()
        .or_else(|| services.issuer())
        .ok_or_else(nobody)?;
    oidc::of_person(roots, issuer, &args.oidc_client_id, &mut |invitation| {
        report::note(format!(
            "open {} and type {}",
            escape(&invitation.address),
            escape(&invitation.code)
        ));
    })
    .await
    .map_err(refused)
}

fn read(path: &Path) -> Result<Token, Failure> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .take(TOKEN_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::io("read", path, &e))?;
    } else {
        bytes = files::named(path, TOKEN_BYTES)?;
    }
    String::from_utf8(bytes)
        .map(Token::new)
        .map_err(|_| Failure::new("identity-token", "the identity token is none"))
}

/// Nothing is sent before this was said, and agreed to.
fn agree(
    args: &Args,
    services: &Services,
    identity: &Identity,
    subject: &Digest,
) -> Result<(), Failure> {
    let lines = [
        format!(
            "{} (by {}) signs {subject}",
            escape(identity.subject()),
            escape(identity.issuer())
        ),
        format!(
            "the identity goes to {}, and with what it signed into the log {}: from then on it is public, and nobody can take it back",
            escape(services.authority()),
            escape(services.log())
        ),
    ];
    if args.yes {
        lines.iter().for_each(report::note);
        return Ok(());
    }
    if !(std::io::stdin().is_terminal() && report::stderr_is_terminal()) {
        return Err(Failure::new(
            "not-agreed",
            format!("nobody agreed to this: {}", lines.join("; ")),
        )
        .help("run it on a terminal to be asked, or pass --yes"));
    }
    if trust::ask(&lines) {
        return Ok(());
    }
    Err(Failure::new(
        "not-agreed",
        "not agreed to; nothing was sent",
    ))
}
