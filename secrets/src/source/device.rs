//! `github-device://HOST/CLIENT_ID`: a token that a person grants in a browser (RFC 8628), as GitHub has it. What renews it stays in
//! memory beside it, and renews it without the person for as long as this process lives.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Host, SourceError, now};
use crate::https::{Answer, Ask, HttpsError, Service};
use crate::value::{Fetched, Secret};

/// How long a person may take, whatever the server would allow.
const MAX_WAIT: Duration = Duration::from_secs(15 * 60);
/// Between two questions, at most.
const MAX_INTERVAL: u64 = 60;
/// Added to it when the server says so (RFC 8628, 3.5).
const SLOWER: u64 = 5;
const MAX_SAID: usize = 200;

#[derive(Debug, Error)]
pub enum DeviceError {
    #[error(transparent)]
    Https(#[from] HttpsError),
    #[error("a person has to grant it in a browser; run it on a terminal")]
    NoPerson,
    #[error("it was not granted within {} min; run it again", .0.as_secs().div_ceil(60))]
    Expired(Duration),
    #[error("the person refused it")]
    Refused,
    #[error(
        "it knows no application of this client id, or that one has no device flow (a setting of the application)"
    )]
    Application,
    #[error("it refused: {0}")]
    Said(String),
    #[error("its answer is not what RFC 8628 has")]
    Malformed,
    #[error("it sends the person to an address that is not https")]
    Address,
}

/// What is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub host: &'a str,
    pub port: u16,
    pub client: &'a str,
    pub scope: &'a str,
}

#[derive(Deserialize)]
struct Started {
    device_code: Zeroizing<String>,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    #[serde(default = "five")]
    interval: u64,
}

fn five() -> u64 {
    5
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    access_token: Option<Zeroizing<String>>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<Zeroizing<String>>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    interval: Option<u64>,
}

/// Renews with what the last one left, or asks the person.
pub async fn fetch(
    wanted: Wanted<'_>,
    before: Option<&Fetched>,
    host: &Host<'_>,
) -> Result<Fetched, SourceError> {
    let service = |error: DeviceError| SourceError::Device {
        service: format!("{}:{}", wanted.host, wanted.port),
        error,
    };
    let client = Service::new(wanted.host, wanted.port, host.roots)
        .map_err(|error| service(error.into()))?;
    let renewed = match before.and_then(|before| before.renewal.as_ref()) {
        Some(renewal) => {
            let renewal = Zeroizing::new(String::from_utf8_lossy(renewal.expose()).into_owned());
            refresh(&client, wanted, &renewal).await.map(Some)
        }
        None => Ok(None),
    };
    let token = match renewed {
        Ok(Some(token)) => token,
        Ok(None) => granted(&client, wanted, host).await.map_err(service)?,
        // It was used up, or taken back: the person may grant it anew.
        Err(DeviceError::Said(_) | DeviceError::Refused) if host.person.is_some() => {
            granted(&client, wanted, host).await.map_err(service)?
        }
        Err(error) => return Err(service(error)),
    };
    let value = token
        .access_token
        .as_ref()
        .ok_or_else(|| service(DeviceError::Malformed))?;
    let made = |text: &Zeroizing<String>| {
        Secret::new(text.as_bytes().to_vec()).map_err(|error| SourceError::Value {
            from: format!("github-device://{}", wanted.host),
            error,
        })
    };
    let expires = token
        .expires_in
        .map(|seconds| now().saturating_add(seconds));
    let mut fetched = Fetched::until(made(value)?, expires);
    fetched.renewal = token.refresh_token.as_ref().map(made).transpose()?;
    Ok(fetched)
}

async fn refresh(
    client: &Service,
    wanted: Wanted<'_>,
    renewal: &str,
) -> Result<Token, DeviceError> {
    let fields = [
        ("client_id", wanted.client),
        ("grant_type", "refresh_token"),
        ("refresh_token", renewal),
    ];
    let answer = post(client, "/login/oauth/access_token", &fields).await?;
    let token: Token = json(&answer)?;
    match token.error {
        None if token.access_token.is_some() => Ok(token),
        None => Err(DeviceError::Malformed),
        Some(error) => Err(said(&error)),
    }
}

async fn granted(
    client: &Service,
    wanted: Wanted<'_>,
    host: &Host<'_>,
) -> Result<Token, DeviceError> {
    let person = host.person.ok_or(DeviceError::NoPerson)?;
    let fields = [("client_id", wanted.client), ("scope", wanted.scope)];
    let answer = post(client, "/login/device/code", &fields).await?;
    if answer.status == 404 {
        return Err(DeviceError::Application);
    }
    let started: Started = match json::<Token>(&answer) {
        Ok(Token {
            error: Some(error), ..
        }) => return Err(said(&error)),
        _ => json(&answer)?,
    };
    if !started.verification_uri.starts_with("https://") {
        return Err(DeviceError::Address);
    }
    person(&format!(
        "open {} and enter {}",
        bounded(&started.verification_uri),
        bounded(&started.user_code)
    ));
    let wait = MAX_WAIT.min(host.second * u32::try_from(started.expires_in).unwrap_or(u32::MAX));
    let polled = poll(client, wanted, &started, host);
    tokio::time::timeout(wait, polled)
        .await
        .map_err(|_| DeviceError::Expired(wait))?
}

async fn poll(
    client: &Service,
    wanted: Wanted<'_>,
    started: &Started,
    host: &Host<'_>,
) -> Result<Token, DeviceError> {
    let mut interval = started.interval.clamp(1, MAX_INTERVAL);
    let fields = [
        ("client_id", wanted.client),
        ("device_code", started.device_code.as_str()),
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
    ];
    loop {
        let seconds = u32::try_from(interval).unwrap_or(u32::MAX);
        tokio::time::sleep(host.second * seconds).await;
        let answer = match post(client, "/login/oauth/access_token", &fields).await {
            Ok(answer) => answer,
            // RFC 8628, 3.5: a connection that times out is a reason to ask less often, and none to give up.
            Err(DeviceError::Https(HttpsError::Deadline | HttpsError::Connect(_))) => {
                interval = (interval * 2).min(MAX_INTERVAL);
                continue;
            }
            Err(error) => return Err(error),
        };
        let token: Token = json(&answer)?;
        match token.error.as_deref() {
            None if token.access_token.is_some() => return Ok(token),
            None => return Err(DeviceError::Malformed),
            Some("authorization_pending") => {}
            Some("slow_down") => {
                interval = token
                    .interval
                    .unwrap_or(interval + SLOWER)
                    .clamp(interval + 1, MAX_INTERVAL.max(interval + 1));
            }
            Some("expired_token") => {
                return Err(DeviceError::Expired(Duration::from_secs(
                    started.expires_in,
                )));
            }
            Some(error) => return Err(said(error)),
        }
    }
}

fn said(error: &str) -> DeviceError {
    match error {
        "access_denied" => DeviceError::Refused,
        "incorrect_client_credentials"
        | "unauthorized_client"
        | "invalid_client"
        | "device_flow_disabled"
        | "Not Found" => DeviceError::Application,
        other => DeviceError::Said(bounded(other)),
    }
}

fn bounded(text: &str) -> String {
    schema::diag::escape(&text.chars().take(MAX_SAID).collect::<String>())
}

fn json<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, DeviceError> {
    serde_json::from_slice(&answer.body).map_err(|_| DeviceError::Malformed)
}

async fn post(
    client: &Service,
    target: &str,
    fields: &[(&str, &str)],
) -> Result<Answer, DeviceError> {
    let mut body = Zeroizing::new(Vec::with_capacity(64 << 10));
    for (name, value) in fields {
        if !body.is_empty() {
            body.push(b'&');
        }
        body.extend_from_slice(name.as_bytes());
        body.push(b'=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                body.push(byte);
            } else {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                body.extend([
                    b'%',
                    HEX[usize::from(byte >> 4)],
                    HEX[usize::from(byte & 15)],
                ]);
            }
        }
    }
    let ask = Ask {
        method: Method::POST,
        target,
        headers: &[],
        body: Some(("application/x-www-form-urlencoded", body)),
    };
    Ok(client.ask(ask).await?)
}
