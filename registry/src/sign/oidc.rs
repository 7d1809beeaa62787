//! Identity tokens: from the machine that a workflow runs on, and from a person by the device flow (RFC 8628), with an issuer that
//! says of itself where its endpoints are (OpenID Connect Discovery).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Response, StatusCode};
use schema::digest::Digest;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::keyless::asked::{failed, unanswered, whole};
use super::keyless::{KeylessError, Token, address, client};

/// The longest answer of an issuer, in bytes.
pub const ANSWER_BYTES: usize = 128 * 1024;
/// The longest time a person has, whatever the issuer says.
const PATIENCE: Duration = Duration::from_secs(900);

/// What a person has to open, and what to type there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    pub address: String,
    pub code: String,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    device_authorization_endpoint: Option<String>,
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Device {
    device_code: Token,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Granted {
    id_token: Option<Token>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

#[derive(Deserialize)]
struct Workload {
    value: Token,
}

/// The token of a workflow on GitHub's runners, which is asked for at `url` with the runner's own, for `audience`.
///
/// # Errors
/// [`KeylessError`]
pub async fn of_workflow(
    roots: &[Vec<u8>],
    url: &str,
    bearer: &str,
    audience: &str,
) -> Result<Token, KeylessError> {
    address(url)?;
    let mut url =
        reqwest::Url::parse(url).map_err(|_| KeylessError::Address("the runner's".to_owned()))?;
    url.query_pairs_mut().append_pair("audience", audience);
    let answer = client(roots)?
        .get(url)
        .header("authorization", format!("bearer {bearer}"))
        .send()
        .await
        .map_err(|e| unanswered("the runner's token service", &e))?;
    let answer: Workload = read("the runner's token service", answer).await?;
    Ok(answer.value)
}

/// A person's token: `invite` is told what to show, and who asks waits until the person is done.
///
/// # Errors
/// [`KeylessError`]: the issuer has no device flow, the person refused or took too long.
pub async fn of_person(
    roots: &[Vec<u8>],
    issuer: &str,
    client_id: &str,
    invite: &mut (dyn FnMut(&Invitation) + Send),
) -> Result<Token, KeylessError> {
    address(issuer)?;
    let http = client(roots)?;
    let at = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let answer = http.get(at).send().await;
    let found: Discovery = read(issuer, answer.map_err(|e| unanswered(issuer, &e))?).await?;
    if found.issuer.trim_end_matches('/') != issuer.trim_end_matches('/') {
        return Err(failed(issuer, "calls itself another issuer"));
    }
    let endpoint = found
        .device_authorization_endpoint
        .ok_or_else(|| failed(issuer, "has no device flow"))?;
    address(&endpoint)?;
    address(&found.token_endpoint)?;
    let verifier = verifier()?;
    let challenge = URL_SAFE_NO_PAD.encode(Digest::of(verifier.as_bytes()).as_bytes());
    let asked = [
        ("client_id", client_id),
        ("scope", "openid email"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let device: Device = read(issuer, post(&http, issuer, &endpoint, &asked).await?).await?;
    invite(&Invitation {
        address: device
            .verification_uri_complete
            .unwrap_or(device.verification_uri),
        code: device.user_code,
    });
    let polled = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", device.device_code.as_str()),
        ("client_id", client_id),
        ("code_verifier", verifier.as_str()),
    ];
    let mut pause = Duration::from_secs(device.interval.unwrap_or(5).clamp(1, 60));
    let wait = PATIENCE.min(Duration::from_secs(device.expires_in));
    let polling = async {
        loop {
            tokio::time::sleep(pause).await;
            let answer = post(&http, issuer, &found.token_endpoint, &polled).await?;
            if answer.status() == StatusCode::OK {
                let granted: Granted = read(issuer, answer).await?;
                return granted
                    .id_token
                    .ok_or_else(|| failed(issuer, "grants no identity token"));
            }
            let refused: Refused = parsed(issuer, answer).await?;
            match refused.error.as_str() {
                "authorization_pending" => {}
                "slow_down" => pause += Duration::from_secs(5),
                other => return Err(failed(issuer, &format!("says {}", shown(other)))),
            }
        }
    };
    tokio::time::timeout(wait, polling)
        .await
        .map_err(|_| failed(issuer, "was not told yes in time"))?
}

/// What proves that who asks for the token is who asked for the code (RFC 7636).
fn verifier() -> Result<Token, KeylessError> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeylessError::Setup("no randomness".into()))?;
    Ok(Token::new(URL_SAFE_NO_PAD.encode(bytes)))
}

async fn post(
    http: &reqwest::Client,
    issuer: &str,
    to: &str,
    fields: &[(&str, &str)],
) -> Result<Response, KeylessError> {
    let form = reqwest::Url::parse_with_params("http://form/", fields)
        .ok()
        .and_then(|url| url.query().map(str::to_owned))
        .unwrap_or_default();
    http.post(to)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(form)
        .send()
        .await
        .map_err(|e| unanswered(issuer, &e))
}

async fn read<T: DeserializeOwned>(who: &str, answer: Response) -> Result<T, KeylessError> {
    if answer.status() != StatusCode::OK {
        return Err(failed(who, &format!("answers {}", answer.status())));
    }
    parsed(who, answer).await
}

async fn parsed<T: DeserializeOwned>(who: &str, answer: Response) -> Result<T, KeylessError> {
    let body = whole(who, answer, ANSWER_BYTES).await?;
    serde_json::from_slice(&body).map_err(|_| failed(who, "answers something else than it should"))
}

fn shown(text: &str) -> String {
    text.chars()
        .take(64)
        .collect::<String>()
        .escape_debug()
        .to_string()
}
