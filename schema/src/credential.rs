//! What both files say of credentials: their names, where a value comes from (the host's word alone), and the field it stands
//! in on the wire. A workspace names a credential, the host grants it; policy joins the two, `secrets` fetches the value.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::config::units::inline_schema;

/// Longest name of a credential in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Most hosts of one credential, in either file.
pub const MAX_HOSTS: usize = 64;
/// Most credentials in either file.
pub const MAX_CREDENTIALS: usize = 64;
/// Longest header name, and longest text on either side of the value, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;
/// Longest source in bytes.
pub const MAX_SOURCE_BYTES: usize = 4096;
/// Most arguments of a program that is a source.
pub const MAX_ARGUMENTS: usize = 64;

/// `[A-Za-z0-9_-]{1,64}`, of a credential or of a secret, whose file has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(Box<str>);

/// Where a value comes from, on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `env://VARIABLE`, of the program that resolves it.
    Env(String),
    /// `file:///path`
    File(PathBuf),
    /// `exec:///path/to/program argument…`: words between spaces, no shell and no quotes.
    Exec {
        program: PathBuf,
        arguments: Vec<String>,
    },
    /// `stdin`: what the program that resolves it is given on standard input, once.
    Stdin,
    /// `keyring://SERVICE/ACCOUNT`: an item of the desktop's keyring.
    Keyring { service: String, account: String },
    /// `op://VAULT/ITEM/FIELD`: a 1Password reference, read by `op`.
    OnePassword(String),
    /// `vault://HOST[:PORT]/MOUNT/PATH#FIELD`: HashiCorp Vault or OpenBao.
    Vault {
        host: String,
        port: u16,
        path: String,
        field: String,
    },
    /// `github-device://HOST[:PORT]/CLIENT_ID[?scope=SCOPE,…]`: granted by a person in a browser (RFC 8628).
    Device {
        host: String,
        port: u16,
        client: String,
        scopes: Vec<String>,
    },
}

/// A field's name, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(Box<str>);

/// The name of a parameter in a URL's query, as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterName(Box<str>);

/// The whole field around the value: `Bearer {}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    prefix: Box<str>,
    suffix: Box<str>,
}

/// Why a text is none of the above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    #[error("expected 1 to {MAX_NAME_BYTES} letters, digits, _ and -")]
    Name,
    #[error(
        "expected env://VARIABLE, file:///PATH, exec:///PATH ARGUMENT…, stdin, keyring://SERVICE/ACCOUNT, op://VAULT/ITEM/FIELD, vault://HOST/MOUNT/PATH#FIELD or github-device://HOST/CLIENT_ID"
    )]
    Source,
    #[error("values are not fetched from there by this version")]
    NotEnforced,
    #[error("expected keyring:// with a service and an account: keyring://SERVICE/ACCOUNT")]
    Keyring,
    #[error("expected op:// with a vault, an item and a field: op://VAULT/ITEM/FIELD")]
    OnePassword,
    #[error("expected vault://HOST[:PORT]/MOUNT/PATH#FIELD")]
    Vault,
    #[error(
        "expected github-device://HOST[:PORT]/CLIENT_ID, with ?scope=SCOPE,… where it needs any"
    )]
    Device,
    #[error("expected env:// and the name of a variable")]
    Variable,
    #[error("expected the absolute path of a file behind file://")]
    Path,
    #[error(
        "expected the absolute path of a program behind exec://, with its arguments between single spaces"
    )]
    Program,
    #[error(
        "no shell reads it: words are divided at spaces alone, and quotes, backslashes, $ and ` have no meaning; put what needs them into a script"
    )]
    Shell,
    #[error("expected the name of a header: letters, digits, - and _")]
    Header,
    #[error(
        "this header belongs to the connection or frames the request, and cannot hold a credential"
    )]
    FramingHeader,
    #[error("expected the name of a query parameter: letters, digits, -, _ and .")]
    Parameter,
    #[error("expected visible ASCII around exactly one {{}}, where the value goes")]
    Format,
}

// === impl CredentialName ===

impl CredentialName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CredentialName {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(CredentialError::Name)
        }
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Order is that of the text, so that maps can be asked with a slice of it.
impl std::borrow::Borrow<str> for CredentialName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for CredentialName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

// === impl Source ===

/// What later versions may fetch from: the scheme of a URI, or the whole word.
const LATER: [&str; 3] = ["infisical", "oidc", "github-app"];
/// Where Vault and OpenBao listen.
const VAULT_PORT: u16 = 8200;

impl Source {
    /// The word that its spelling begins with.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Env(_) => "env",
            Self::File(_) => "file",
            Self::Exec { .. } => "exec",
            Self::Stdin => "stdin",
            Self::Keyring { .. } => "keyring",
            Self::OnePassword(_) => "op",
            Self::Vault { .. } => "vault",
            Self::Device { .. } => "github-device",
        }
    }

    fn keyring(rest: &str) -> Option<Self> {
        let (service, account) = rest.split_once('/')?;
        (!service.is_empty() && !account.is_empty()).then(|| Self::Keyring {
            service: service.to_owned(),
            account: account.to_owned(),
        })
    }

    fn one_password(rest: &str) -> Option<Self> {
        let parts: Vec<&str> = rest.split('/').collect();
        let fits = (3..=4).contains(&parts.len()) && parts.iter().all(|part| !part.is_empty());
        fits.then(|| Self::OnePassword(rest.to_owned()))
    }

    fn vault(rest: &str) -> Option<Self> {
        let (rest, field) = rest.rsplit_once('#')?;
        let (authority, path) = rest.split_once('/')?;
        let (host, port) = authority_of(authority, VAULT_PORT)?;
        let parts: Vec<&str> = path.split('/').collect();
        let plain = |part: &&str| !part.is_empty() && !matches!(*part, "." | "..");
        let fits = parts.len() >= 2 && parts.iter().all(plain) && !field.is_empty();
        fits.then(|| Self::Vault {
            host,
            port,
            path: path.to_owned(),
            field: field.to_owned(),
        })
    }

    fn device(rest: &str) -> Option<Self> {
        let (authority, rest) = rest.split_once('/')?;
        let (host, port) = authority_of(authority, 443)?;
        let (client, scopes) = match rest.split_once("?scope=") {
            Some((client, scopes)) => (client, scopes.split(',').map(str::to_owned).collect()),
            None => (rest, Vec::new()),
        };
        let word = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        let fits = word(client) && scopes.iter().all(|scope: &String| word(scope));
        fits.then(|| Self::Device {
            host,
            port,
            client: client.to_owned(),
            scopes,
        })
    }
}

/// A host of the person's own choice (a name of one label or an address too), and a port.
fn authority_of(text: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default),
    };
    let fits = (1..=253).contains(&host.len())
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        && !host.starts_with(['-', '.']);
    fits.then(|| (host.to_ascii_lowercase(), port))
}

fn with_port(host: &str, port: u16, default: u16) -> String {
    if port == default {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

impl FromStr for Source {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        if text.len() > MAX_SOURCE_BYTES || text.chars().any(char::is_control) {
            return Err(CredentialError::Source);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None if text == "stdin" => return Ok(Self::Stdin),
            None if LATER.contains(&text) => return Err(CredentialError::NotEnforced),
            None => return Err(CredentialError::Source),
        };
        let absolute = |path: &str| path.len() > 1 && path.starts_with('/');
        match scheme {
            "env" => {
                let fits = (1..=128).contains(&rest.len())
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && !rest.starts_with(|c: char| c.is_ascii_digit());
                if fits {
                    Ok(Self::Env(rest.to_owned()))
                } else {
                    Err(CredentialError::Variable)
                }
            }
            "file" if absolute(rest) => Ok(Self::File(rest.into())),
            "file" => Err(CredentialError::Path),
            "exec" if rest.contains(['"', '\'', '\\', '$', '`']) => Err(CredentialError::Shell),
            "exec" => {
                let mut words = rest.split(' ');
                let program = words.next().unwrap_or_default();
                let arguments: Vec<String> = words.map(str::to_owned).collect();
                let fits = absolute(program)
                    && arguments.len() <= MAX_ARGUMENTS
                    && arguments.iter().all(|argument| !argument.is_empty());
                if fits {
                    Ok(Self::Exec {
                        program: program.into(),
                        arguments,
                    })
                } else {
                    Err(CredentialError::Program)
                }
            }
            "keyring" => Self::keyring(rest).ok_or(CredentialError::Keyring),
            "op" => Self::one_password(rest).ok_or(CredentialError::OnePassword),
            "vault" => Self::vault(rest).ok_or(CredentialError::Vault),
            "github-device" => Self::device(rest).ok_or(CredentialError::Device),
            later if LATER.contains(&later) => Err(CredentialError::NotEnforced),
            _ => Err(CredentialError::Source),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env://{name}"),
            Self::File(path) => write!(f, "file://{}", path.display()),
            Self::Exec { program, arguments } => {
                write!(f, "exec://{}", program.display())?;
                arguments
                    .iter()
                    .try_for_each(|argument| write!(f, " {argument}"))
            }
            Self::Stdin => f.write_str("stdin"),
            Self::Keyring { service, account } => write!(f, "keyring://{service}/{account}"),
            Self::OnePassword(reference) => write!(f, "op://{reference}"),
            Self::Vault {
                host,
                port,
                path,
                field,
            } => write!(
                f,
                "vault://{}/{path}#{field}",
                with_port(host, *port, VAULT_PORT)
            ),
            Self::Device {
                host,
                port,
                client,
                scopes,
            } => {
                write!(
                    f,
                    "github-device://{}/{client}",
                    with_port(host, *port, 443)
                )?;
                match scopes.as_slice() {
                    [] => Ok(()),
                    scopes => write!(f, "?scope={}", scopes.join(",")),
                }
            }
        }
    }
}

// === impl HeaderName ===

/// Fields that frame a request or belong to one connection (RFC 9110, 7.6.1; RFC 9112, 6), and the name that policy is about.
const FRAMING: [&str; 14] = [
    "host",
    "connection",
    "content-length",
    "content-encoding",
    "content-type",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl HeaderName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HeaderName {
    fn default() -> Self {
        Self("authorization".into())
    }
}

impl FromStr for HeaderName {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        let fits = (1..=MAX_TEXT_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let name = text.to_ascii_lowercase();
        match fits {
            true if FRAMING.contains(&name.as_str()) => Err(CredentialError::FramingHeader),
            true => Ok(Self(name.into())),
            false => Err(CredentialError::Header),
        }
    }
}

impl Serialize for HeaderName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ParameterName ===

impl ParameterName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ParameterName {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        let fits = (1..=MAX_TEXT_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        fits.then(|| Self(text.into()))
            .ok_or(CredentialError::Parameter)
    }
}

impl Serialize for ParameterName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for ParameterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Format ===

impl Format {
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn suffix(&self) -> &str {
        &self.suffix
    }
}

impl Default for Format {
    fn default() -> Self {
        Self {
            prefix: "Bearer ".into(),
            suffix: "".into(),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{}}{}", self.prefix, self.suffix)
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Format {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        let visible = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        match text.split_once("{}") {
            // A field has no space at either end (RFC 9110, 5.5).
            Some((prefix, suffix))
                if visible
                    && !suffix.contains("{}")
                    && prefix.len() <= MAX_TEXT_BYTES
                    && suffix.len() <= MAX_TEXT_BYTES
                    && !prefix.starts_with(' ')
                    && !suffix.ends_with(' ') =>
            {
                Ok(Self {
                    prefix: prefix.into(),
                    suffix: suffix.into(),
                })
            }
            _ => Err(CredentialError::Format),
        }
    }
}

// === impl CredentialError ===

impl CredentialError {
    /// Code of the diagnostic.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotEnforced => "not-enforced",
            _ => "invalid-value",
        }
    }
}

inline_schema!(CredentialName, "CredentialName", {
    "type": "string",
    "maxLength": MAX_NAME_BYTES,
    "pattern": "^[A-Za-z0-9_-]{1,64}$"
});
inline_schema!(Source, "Source", {
    "type": "string",
    "maxLength": MAX_SOURCE_BYTES,
    "pattern": "^(env://[A-Za-z_][A-Za-z0-9_]*|file:///.+|exec:///[^\"'\\\\$`]+|stdin|keyring://[^/]+/.+|op://[^/]+/[^/]+/.+|vault://[^/]+/[^#]+/[^#]+#.+|github-device://[^/]+/.+)$"
});
inline_schema!(HeaderName, "HeaderName", {
    "type": "string",
    "maxLength": MAX_TEXT_BYTES,
    "pattern": "^[A-Za-z0-9_-]+$"
});
inline_schema!(ParameterName, "ParameterName", {
    "type": "string",
    "maxLength": MAX_TEXT_BYTES,
    "pattern": "^[A-Za-z0-9._-]+$"
});
inline_schema!(Format, "Format", {
    "type": "string",
    "pattern": "^[ -~]*\\{\\}[ -~]*$"
});

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_has_a_closed_alphabet_and_a_bound() {
        for text in ["github", "a-b_C9", &"x".repeat(MAX_NAME_BYTES)] {
            assert_eq!(text.parse::<CredentialName>().unwrap().as_str(), text);
        }
        for text in [
            "",
            "a b",
            "a.b",
            "ä",
            "a/b",
            &"x".repeat(MAX_NAME_BYTES + 1),
        ] {
            assert_eq!(
                text.parse::<CredentialName>(),
                Err(CredentialError::Name),
                "{text}"
            );
        }
    }

    #[test]
    fn a_source_is_a_variable_a_file_or_a_program_and_nothing_that_a_shell_would_read() {
        for text in [
            "env://GITHUB_TOKEN",
            "file:///home/me/.token with space",
            "exec:///usr/bin/gh auth token",
            "exec:///bin/x",
            "stdin",
            "keyring://github/me@example.com",
            "op://Engineering/npm token/password",
            "op://Engineering/npm/section/password",
            "vault://vault.corp/secret/team/github#token",
            "vault://127.0.0.1:8443/secret/github#a b",
            "github-device://github.com/Iv1.0123456789abcdef",
            "github-device://ghe.corp:8443/abc?scope=repo,read:org",
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.to_string(), text);
            assert_eq!(Some(source.kind()), text.split(':').next());
        }
        use CredentialError as E;
        for (text, error) in [
            ("", E::Source),
            ("GITHUB_TOKEN", E::Source),
            ("https://x", E::Source),
            ("env://", E::Variable),
            ("env://1A", E::Variable),
            ("env://A=B", E::Variable),
            ("file://token", E::Path),
            ("file:///", E::Path),
            ("exec://gh auth", E::Program),
            ("exec:///usr/bin/gh  token", E::Program),
            ("exec:///usr/bin/gh ", E::Program),
            ("exec:///bin/sh -c \"x\"", E::Shell),
            ("exec:///bin/echo $HOME", E::Shell),
            ("file:///a\nb", E::Source),
            ("keyring://github", E::Keyring),
            ("keyring:///me", E::Keyring),
            ("op://Engineering/npm", E::OnePassword),
            ("op://a//b", E::OnePassword),
            ("vault://vault.corp/secret/github", E::Vault),
            ("vault://vault.corp/secret#token", E::Vault),
            ("vault://vault.corp/secret/../sys/raw#token", E::Vault),
            ("vault://vault.corp:0/secret/x#token", E::Vault),
            ("vault://user@vault.corp/secret/x#token", E::Vault),
            ("github-device://github.com", E::Device),
            ("github-device://github.com/a b", E::Device),
            ("github-device://github.com/abc?scope=", E::Device),
            ("infisical://x/y", E::NotEnforced),
            ("oidc", E::NotEnforced),
        ] {
            assert_eq!(text.parse::<Source>(), Err(error), "{text}");
        }
        let long = |n: usize| format!("file:///{}", "x".repeat(n - 8));
        assert!(long(MAX_SOURCE_BYTES).parse::<Source>().is_ok());
        assert!(long(MAX_SOURCE_BYTES + 1).parse::<Source>().is_err());
        let many = |n: usize| format!("exec:///x{}", " y".repeat(n));
        assert!(many(MAX_ARGUMENTS).parse::<Source>().is_ok());
        assert!(many(MAX_ARGUMENTS + 1).parse::<Source>().is_err());
    }

    #[test]
    fn a_header_is_a_name_in_lower_case_that_frames_nothing() {
        let header: HeaderName = "X-Api-Key".parse().unwrap();
        assert_eq!(header.as_str(), "x-api-key");
        assert_eq!(HeaderName::default().as_str(), "authorization");
        for text in ["", "a b", "a:b", ":authority", "ä", "x\r\n"] {
            assert_eq!(
                text.parse::<HeaderName>(),
                Err(CredentialError::Header),
                "{text}"
            );
        }
        for text in ["", "a b", "a=b", "a&b", "a[b]", "%61", "ä"] {
            let error = Err(CredentialError::Parameter);
            assert_eq!(text.parse::<ParameterName>(), error, "{text}");
        }
        for (n, fits) in [
            (1, true),
            (MAX_TEXT_BYTES, true),
            (MAX_TEXT_BYTES + 1, false),
        ] {
            assert_eq!("k".repeat(n).parse::<ParameterName>().is_ok(), fits);
        }
        for text in ["Host", "content-length", "Transfer-Encoding"] {
            assert_eq!(
                text.parse::<HeaderName>(),
                Err(CredentialError::FramingHeader),
                "{text}"
            );
        }
        assert!("x".repeat(MAX_TEXT_BYTES).parse::<HeaderName>().is_ok());
        assert!(
            "x".repeat(MAX_TEXT_BYTES + 1)
                .parse::<HeaderName>()
                .is_err()
        );
    }

    #[test]
    fn a_format_has_exactly_one_place_for_the_value() {
        for (text, prefix, suffix) in [
            ("Bearer {}", "Bearer ", ""),
            ("{}", "", ""),
            ("token=\"{}\"", "token=\"", "\""),
        ] {
            let format: Format = text.parse().unwrap();
            assert_eq!((format.prefix(), format.suffix()), (prefix, suffix));
        }
        let standard = Format::default();
        assert_eq!((standard.prefix(), standard.suffix()), ("Bearer ", ""));
        for text in ["", "Bearer", "{}{}", "a\t{}", "{}\r\n", " {}", "{} ", "ä{}"] {
            assert_eq!(
                text.parse::<Format>(),
                Err(CredentialError::Format),
                "{text:?}"
            );
        }
        let long = |n: usize| format!("{}{{}}", "x".repeat(n));
        assert!(long(MAX_TEXT_BYTES).parse::<Format>().is_ok());
        assert!(long(MAX_TEXT_BYTES + 1).parse::<Format>().is_err());
    }
}
