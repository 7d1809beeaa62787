//! Credentials as policy knows them: which one may go where, and in which field. Their values are not here: they travel
//! beside the policy and only to the gateway, which decides by this.

use std::fmt;

use schema::host::{HostName, HostPattern};
use schema::request::{MAX_IN_RULE, Method, PathGlob, is_canonical};
use serde::{Deserialize, Serialize};

use crate::effective::{Origin, PolicyError};

/// Most credentials in one policy.
pub const MAX_CREDENTIALS: usize = 64;
/// Most places in one credential.
pub const MAX_CREDENTIAL_PLACES: usize = 64;
/// Longest name, field name, prefix or suffix in bytes.
pub const MAX_CREDENTIAL_TEXT: usize = 256;

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Credential {
    pub name: String,
    /// Where it may go, `https` only; that traffic may go there at all is the network's to say.
    pub places: Vec<Place>,
    /// The field it stands in, in lower case.
    pub header: String,
    /// What stands around it where the gateway writes the whole field: `Bearer ` and nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    /// The query parameter that its placeholder may be the value of as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The variable that holds its placeholder inside. Without one the gateway writes the field into every request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub host: HostPattern,
    pub port: u16,
    /// The paths it may go to there, where not to all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathGlob>,
    /// The methods it may go with there, where not with all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
}

/// A request, as far as it is asked whether a credential may go with it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// A field or parameter of it is another method to some servers, or another path.
    pub other_method: bool,
    pub other_path: bool,
}

impl Place {
    /// For people: with its methods and paths.
    pub fn shown(&self) -> String {
        match self.limits() {
            limits if limits.is_empty() => self.to_string(),
            limits => format!("{self} ({limits})"),
        }
    }

    /// Its methods and paths; empty where it is for every request.
    pub fn limits(&self) -> String {
        let methods = self.methods.iter().map(Method::as_str);
        let all: Vec<&str> = methods
            .chain(self.paths.iter().map(PathGlob::as_str))
            .collect();
        all.join(" ")
    }

    fn is(&self, name: &HostName, port: u16) -> bool {
        self.port == port && self.host.matches(name)
    }

    /// Whether one request may be for both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let mut paths = self.paths.iter();
        let mut methods = self.methods.iter();
        self.port == other.port
            && self.host.intersect(&other.host).is_some()
            && (self.paths.is_empty()
                || other.paths.is_empty()
                || paths.any(|path| other.paths.iter().any(|one| one.meets(path))))
            && (self.methods.is_empty()
                || other.methods.is_empty()
                || methods.any(|method| other.methods.contains(method)))
    }

    /// A path that is not spelt in its one way is none that is meant: the server may read it as another. So with what overrides either.
    fn admits(&self, asked: Asked<'_>) -> bool {
        let path = !asked.other_path
            && is_canonical(asked.path)
            && self.paths.iter().any(|glob| glob.matches(asked.path));
        let method = !asked.other_method
            && self
                .methods
                .iter()
                .any(|method| method.as_str() == asked.method);
        (self.paths.is_empty() || path) && (self.methods.is_empty() || method)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Credential {
    /// Whether it may go to that name and port.
    pub fn fits(&self, name: &HostName, port: u16) -> bool {
        self.places.iter().any(|place| place.is(name, port))
    }

    /// Whether it may go with that request there.
    pub fn fits_request(&self, name: &HostName, port: u16, asked: Asked<'_>) -> bool {
        let mut there = self.places.iter().filter(|place| place.is(name, port));
        there.any(|place| place.admits(asked))
    }

    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let texts = [&self.name, &self.header, &self.prefix, &self.suffix];
        let visible = |text: &str| text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        let parameter = |text: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            (1..=MAX_CREDENTIAL_TEXT).contains(&text.len()) && text.bytes().all(plain)
        };
        let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        let fine = texts
            .iter()
            .all(|text| text.len() <= MAX_CREDENTIAL_TEXT && visible(text))
            && !self.name.is_empty()
            && !self.header.is_empty()
            && self.header.bytes().all(token)
            && self.query.as_ref().is_none_or(|query| parameter(query))
            && !self.places.is_empty()
            && self.places.len() <= MAX_CREDENTIAL_PLACES
            && self.places.iter().all(|place| place.port != 0)
            && self.places.iter().all(|place| {
                place.paths.len() <= MAX_IN_RULE && place.methods.len() <= MAX_IN_RULE
            });
        if fine {
            Ok(())
        } else {
            Err(PolicyError::Credential(self.origin.clone()))
        }
    }
}
