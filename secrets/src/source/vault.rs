//! `vault://HOST[:PORT]/MOUNT/PATH#FIELD`: one field of a secret of HashiCorp Vault or OpenBao, by their HTTP API over TLS. Who asks
//! is said by the host's own environment, in the names that their command lines have.

use std::borrow::Cow;
use std::collections::HashMap;

use hyper::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{Host, SourceError, read_file};
use crate::https::{Answer, Ask, HttpsError, Service};
use crate::value::{Fetched, READ_BYTES, Secret};

/// So much of what a server says about an error is shown, in characters.
const MAX_SAID: usize = 200;
/// The largest bundle of certificates that is read, in bytes.
const MAX_BUNDLE_BYTES: usize = 4 << 20;

#[derive(Debug, Error)]
pub enum VaultError {
    #[error(transparent)]
    Https(#[from] HttpsError),
    #[error(
        "nothing says who asks: set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID, or VAULT_ROLE and VAULT_JWT (or VAULT_JWT_FILE), or log in so that ~/.vault-token is there"
    )]
    NoLogin,
    #[error("{variable} names {what}, which cannot be used: {why}")]
    File {
        variable: &'static str,
        what: String,
        why: String,
    },
    #[error("it refused the login ({status}{said}); look at {who}")]
    Login {
        who: &'static str,
        status: u16,
        said: String,
    },
    #[error(
        "it refused to read the secret ({status}{said}); the policy of {who} has to allow `read` there"
    )]
    Denied {
        who: &'static str,
        status: u16,
        said: String,
    },
    #[error("there is no secret {0}, or its latest version was deleted")]
    NotFound(String),
    #[error("the secret has no field {field}; it has {}", .there.join(", "))]
    NoField { field: String, there: Vec<String> },
    #[error("the field {0} is no string")]
    NotText(String),
    #[error("it is sealed, or a standby that does not forward ({0})")]
    Unavailable(u16),
    #[error("it answered {status}{said}")]
    Status { status: u16, said: String },
    #[error("its answer is not what its API has")]
    Malformed,
}

/// What is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub host: &'a str,
    pub port: u16,
    /// Mount and path.
    pub path: &'a str,
    pub field: &'a str,
}

/// Who asks.
struct Login {
    token: Zeroizing<String>,
    who: &'static str,
}

struct Client<'a> {
    service: Service,
    namespace: Option<String>,
    host: &'a Host<'a>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    lease_id: Cow<'a, str>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(borrow, default)]
    auth: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Zeroizing<String>,
}

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: Option<HashMap<Cow<'a, str>, &'a RawValue>>,
}

#[derive(Deserialize)]
struct Mount {
    path: String,
    #[serde(default)]
    options: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// Reads the field.
pub async fn fetch(wanted: Wanted<'_>, host: &Host<'_>) -> Result<Fetched, SourceError> {
    read(wanted, host)
        .await
        .map_err(|error| SourceError::Vault {
            service: format!("{}:{}", wanted.host, wanted.port),
            error,
        })?
}

async fn read(
    wanted: Wanted<'_>,
    host: &Host<'_>,
) -> Result<Result<Fetched, SourceError>, VaultError> {
    let client = Client {
        service: Service::new(wanted.host, wanted.port, &roots(host)?)?,
        namespace: text(host, &["VAULT_NAMESPACE", "BAO_NAMESPACE"]),
        host,
    };
    let login = client.login().await?;
    let (target, versioned) = client.place(wanted.path, &login).await?;
    let answer = client.get(&target, &login).await?;
    let envelope: Envelope<'_> = match answer.status {
        200 => json(&answer)?,
        403 => {
            return Err(VaultError::Denied {
                who: login.who,
                status: 403,
                said: said(&answer),
            });
        }
        404 => return Err(VaultError::NotFound(wanted.path.to_owned())),
        _ => return Err(failed(&answer)),
    };
    let data = envelope.data.ok_or(VaultError::Malformed)?;
    let malformed = |_| VaultError::Malformed;
    let fields = if versioned {
        let inner: Versioned<'_> = serde_json::from_str(data.get()).map_err(malformed)?;
        inner
            .data
            .ok_or_else(|| VaultError::NotFound(wanted.path.to_owned()))?
    } else {
        serde_json::from_str(data.get()).map_err(malformed)?
    };
    let Some(raw) = fields.get(wanted.field) else {
        let mut there: Vec<String> = fields.keys().map(|key| key.to_string()).collect();
        there.sort();
        return Err(VaultError::NoField {
            field: wanted.field.to_owned(),
            there,
        });
    };
    let value: Zeroizing<String> = serde_json::from_str(raw.get())
        .map_err(|_| VaultError::NotText(wanted.field.to_owned()))?;
    // Of a key and value store the duration is a hint; a lease is a lease.
    let expires = (!envelope.lease_id.is_empty() && envelope.lease_duration > 0)
        .then(|| super::now().saturating_add(envelope.lease_duration));
    let value = Secret::new(value.as_bytes().to_vec());
    Ok(value
        .map(|value| Fetched::until(value, expires))
        .map_err(|error| SourceError::Value {
            from: format!("vault://{}/{}#{}", wanted.host, wanted.path, wanted.field),
            error,
        }))
}

impl Client<'_> {
    async fn get(&self, target: &str, login: &Login) -> Result<Answer, VaultError> {
        self.ask(Method::GET, target, Some(&login.token), None)
            .await
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        token: Option<&str>,
        body: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, VaultError> {
        let mut headers = vec![("x-vault-request", "true")];
        headers.extend(token.map(|token| ("x-vault-token", token)));
        headers.extend(
            self.namespace
                .as_deref()
                .map(|namespace| ("x-vault-namespace", namespace)),
        );
        let ask = Ask {
            method,
            target,
            headers: &headers,
            body: body.map(|body| ("application/json", body)),
        };
        Ok(self.service.ask(ask).await?)
    }

    /// What is set explicitly first; the token that a login on this host left last.
    async fn login(&self) -> Result<Login, VaultError> {
        let host = self.host;
        if let Some(token) = secret(host, &["VAULT_TOKEN", "BAO_TOKEN"]) {
            return Ok(Login {
                token,
                who: "VAULT_TOKEN",
            });
        }
        if let Some(role) = secret(host, &["VAULT_ROLE_ID", "BAO_ROLE_ID"]) {
            let mut fields = vec![("role_id", role)];
            fields.extend(
                secret(host, &["VAULT_SECRET_ID", "BAO_SECRET_ID"]).map(|id| ("secret_id", id)),
            );
            let mount = text(host, &["VAULT_AUTH_MOUNT"]).unwrap_or_else(|| "approle".to_owned());
            return self
                .log_in(&mount, &fields, "VAULT_ROLE_ID and VAULT_SECRET_ID")
                .await;
        }
        let jwt = match (
            secret(host, &["VAULT_JWT"]),
            text(host, &["VAULT_JWT_FILE"]),
        ) {
            (Some(jwt), _) => Some(jwt),
            (None, Some(path)) => Some(file("VAULT_JWT_FILE", &path, READ_BYTES)?),
            (None, None) => None,
        };
        if let Some(jwt) = jwt {
            let mut fields = vec![("jwt", jwt)];
            fields.extend(secret(host, &["VAULT_ROLE"]).map(|role| ("role", role)));
            let mount = text(host, &["VAULT_AUTH_MOUNT"]).unwrap_or_else(|| "jwt".to_owned());
            return self
                .log_in(&mount, &fields, "VAULT_JWT and VAULT_ROLE")
                .await;
        }
        let kept = text(host, &["HOME"]).map(|home| format!("{home}/.vault-token"));
        match kept.filter(|path| std::path::Path::new(path).exists()) {
            Some(path) => Ok(Login {
                token: file("HOME", &path, READ_BYTES)?,
                who: "~/.vault-token",
            }),
            None => Err(VaultError::NoLogin),
        }
    }

    async fn log_in(
        &self,
        mount: &str,
        fields: &[(&str, Zeroizing<String>)],
        who: &'static str,
    ) -> Result<Login, VaultError> {
        let fields: HashMap<&str, &str> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let body = Zeroizing::new(serde_json::to_vec(&fields).unwrap_or_default());
        let target = format!("/v1/auth/{}/login", encoded(mount));
        let answer = self.ask(Method::POST, &target, None, Some(body)).await?;
        match answer.status {
            200 => {}
            400 | 401 | 403 | 404 => {
                return Err(VaultError::Login {
                    who,
                    status: answer.status,
                    said: said(&answer),
                });
            }
            _ => return Err(failed(&answer)),
        }
        let envelope: Envelope<'_> = json(&answer)?;
        let auth = envelope.auth.ok_or(VaultError::Malformed)?;
        let auth: Auth = serde_json::from_str(auth.get()).map_err(|_| VaultError::Malformed)?;
        Ok(Login {
            token: auth.client_token,
            who,
        })
    }

    /// Where the secret is read, and whether its store keeps versions: what their own command lines ask first.
    async fn place(&self, path: &str, login: &Login) -> Result<(String, bool), VaultError> {
        let target = format!("/v1/sys/internal/ui/mounts/{}", encoded(path));
        let answer = self.get(&target, login).await?;
        let plain = || (format!("/v1/{}", encoded(path)), false);
        match answer.status {
            200 => {}
            // Too old to be asked: there were no versions then.
            404 => return Ok(plain()),
            403 => {
                return Err(VaultError::Denied {
                    who: login.who,
                    status: 403,
                    said: said(&answer),
                });
            }
            _ => return Err(failed(&answer)),
        }
        let envelope: Envelope<'_> = json(&answer)?;
        let data = envelope.data.ok_or(VaultError::Malformed)?;
        let mount: Mount = serde_json::from_str(data.get()).map_err(|_| VaultError::Malformed)?;
        let versioned = mount
            .options
            .is_some_and(|options| options.get("version").is_some_and(|v| v == "2"));
        match path.strip_prefix(mount.path.as_str()) {
            Some(rest) if versioned => Ok((
                format!("/v1/{}data/{}", encoded(&mount.path), encoded(rest)),
                true,
            )),
            _ => Ok(plain()),
        }
    }
}

fn json<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, VaultError> {
    serde_json::from_slice(&answer.body).map_err(|_| VaultError::Malformed)
}

fn failed(answer: &Answer) -> VaultError {
    match answer.status {
        status @ (429 | 472 | 473 | 503) => VaultError::Unavailable(status),
        status => VaultError::Status {
            status,
            said: said(answer),
        },
    }
}

/// Its own words about an error.
fn said(answer: &Answer) -> String {
    let errors: Vec<String> = json::<Errors>(answer).map_or(Vec::new(), |errors| errors.errors);
    match errors.join("; ").trim() {
        "" => String::new(),
        text => {
            let bounded: String = text.chars().take(MAX_SAID).collect();
            format!(": {}", schema::diag::escape(&bounded))
        }
    }
}

/// The host's roots, or what their command lines are told to trust instead.
fn roots(host: &Host<'_>) -> Result<Vec<Vec<u8>>, VaultError> {
    let Some(path) = text(host, &["VAULT_CACERT", "BAO_CACERT"]) else {
        return Ok(host.roots.to_vec());
    };
    let pem = file("VAULT_CACERT", &path, MAX_BUNDLE_BYTES)?;
    let found: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(|certificate| Some(certificate.ok()?.to_vec()))
        .collect();
    if found.is_empty() {
        return Err(VaultError::File {
            variable: "VAULT_CACERT",
            what: path,
            why: "it holds no certificate in PEM".to_owned(),
        });
    }
    Ok(found)
}

fn text(host: &Host<'_>, names: &[&str]) -> Option<String> {
    let value = names.iter().find_map(|name| (host.env)(name))?;
    value.into_string().ok().filter(|value| !value.is_empty())
}

fn secret(host: &Host<'_>, names: &[&str]) -> Option<Zeroizing<String>> {
    text(host, names).map(Zeroizing::new)
}

fn file(variable: &'static str, path: &str, limit: usize) -> Result<Zeroizing<String>, VaultError> {
    let failed = |why: String| VaultError::File {
        variable,
        what: path.to_owned(),
        why,
    };
    let bytes = read_file(path.as_ref(), limit).map_err(|e| failed(e.to_string()))?;
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|e| failed(e.to_string()))?;
    Ok(Zeroizing::new(text.trim_end().to_owned()))
}

/// A path as it stands in a request: everything but what is plain in one is percent-encoded.
fn encoded(path: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
