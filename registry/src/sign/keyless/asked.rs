//! Questions to Sigstore's services and to issuers, and their answers up to a bound. The library that has types for them would read an
//! answer whole, however long it is; so it is asked here, and the library only reads what came.

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::KeylessError;

/// The longest answer of an authority, a log or a timestamp authority, in bytes.
pub const SERVICE_BYTES: usize = 1 << 20;
/// The most of a service's own words that is shown, in characters.
const SAID: usize = 300;

/// A question in JSON, and what the answer says.
pub(super) async fn json<T: DeserializeOwned>(
    client: &Client,
    who: &str,
    to: &str,
    question: &impl Serialize,
) -> Result<T, KeylessError> {
    // It may hold a token.
    let body = serde_json::to_vec(question).map_err(|_| failed(who, "cannot be asked that"))?;
    let answer = bytes(client, who, to, "application/json", Zeroizing::new(body)).await?;
    serde_json::from_slice(&answer)
        .map_err(|e| failed(who, &format!("answers something else than it should: {e}")))
}

/// A question, and the bytes of its answer.
pub(super) async fn bytes(
    client: &Client,
    who: &str,
    to: &str,
    media_type: &str,
    question: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, KeylessError> {
    let answer = client
        .post(to)
        .header(CONTENT_TYPE, media_type)
        .header(ACCEPT, media_type.replace("-query", "-reply"))
        .body(question.to_vec())
        .send()
        .await
        .map_err(|e| unanswered(who, &e))?;
    let status = answer.status();
    let body = whole(who, answer, SERVICE_BYTES).await;
    if status.is_success() {
        return body;
    }
    let said = body.map_or_else(|_| String::new(), |body| words(&body));
    Err(failed(who, format!("answers {status} {said}").trim_end()))
}

/// An answer of at most `limit` bytes.
pub(in crate::sign) async fn whole(
    who: &str,
    mut answer: Response,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, KeylessError> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(piece) = answer.chunk().await.map_err(|e| unanswered(who, &e))? {
        if body.len() + piece.len() > limit {
            return Err(failed(
                who,
                &format!("answers more than it may ({limit} bytes)"),
            ));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

pub(in crate::sign) fn failed(who: &str, what: &str) -> KeylessError {
    KeylessError::Service(format!("{} {what}", who.escape_debug()))
}

pub(in crate::sign) fn unanswered(who: &str, error: &reqwest::Error) -> KeylessError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    failed(who, &format!("does not answer: {cause}"))
}

/// What a service says of itself, short and escaped.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let short: String = text.trim().chars().take(SAID).collect();
    short.escape_debug().to_string()
}
