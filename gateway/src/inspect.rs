//! Inspectors: what an agent sends is looked at after rules have allowed it and before a credential is put in, so that no value
//! of ours is ever seen here. One chain a policy; each link has its level, the first that blocks ends it, and one that
//! fails blocks. A custom inspector is one more [`Inspector`]. Called by `http::inspected`.

mod base64;
mod content_type;
mod entropy;
pub mod formats;
pub mod frames;
mod rare;
mod runs;
mod secrets;
mod shape;
mod stream;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use schema::host::HostName;
use schema::inspection::{Inspector as Name, Level};

use crate::percent;

pub use self::base64::Base64;
pub use content_type::ContentType;
pub use entropy::Entropy;
pub use secrets::Secrets;
pub use stream::{Scanner, Stream};

/// Looks at texts. What it says of them must not hold them.
pub trait Inspector: Send + Sync {
    /// Of its findings: stable, part of events and pages.
    fn code(&self) -> &'static str;

    fn look(&self, text: &Text<'_>) -> Look;
}

/// A field, a body, a message, or as much of one as is at hand.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub bytes: &'a [u8],
    /// Where they begin in the whole. What lies at the beginning may have been looked at before.
    pub at: u64,
    /// There may be more to come.
    pub more: bool,
    pub field: &'a Field,
    /// Where it goes.
    pub to: &'a Destination,
    /// Its media type, as its head says; in lower case, without parameters.
    pub media: Option<&'a str>,
    /// Texts that stand for something and are nothing themselves.
    pub known: &'a [Vec<u8>],
}

/// What an inspector says of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub found: Option<Found>,
    /// So many bytes at the end cannot be decided about before more of it has come.
    pub pending: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is; never the thing itself.
    pub kind: &'static str,
    /// Where it begins in the text's bytes.
    pub at: usize,
    pub length: usize,
}

/// Which part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Method,
    Path,
    Query,
    Header(String),
    Body,
    Trailer(String),
    /// Of a WebSocket.
    Message,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Destination {
    /// `None`: an address.
    pub name: Option<HostName>,
    pub tls: bool,
}

/// What was found, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub code: &'static str,
    /// The inspector that policy knows; `None`: a custom one.
    pub inspector: Option<Name>,
    pub level: Level,
    pub kind: &'static str,
    pub field: Field,
    pub at: u64,
    pub length: usize,
}

/// Of an inspector that failed: nobody knows what it would have found.
const FAILED: &str = "inspection-failed";

struct Link {
    name: Option<Name>,
    level: Level,
    inspector: Arc<dyn Inspector>,
}

/// The inspectors of one policy, in their order.
#[derive(Default)]
pub struct Chain {
    links: Vec<Link>,
    known: Vec<Vec<u8>>,
}

// === impl Chain ===

impl Chain {
    /// By policy's levels. `known`: placeholders of credentials, which are no secrets.
    pub fn new(levels: &policy::Inspection, known: Vec<Vec<u8>>) -> Self {
        let mut chain = Self {
            links: Vec::new(),
            known,
        };
        for name in Name::ALL {
            let inspector: Arc<dyn Inspector> = match name {
                Name::Secrets => Arc::new(Secrets),
                Name::Entropy => Arc::new(Entropy),
                Name::ContentType => Arc::new(ContentType),
                Name::Base64 => Arc::new(Base64),
            };
            chain = chain.with(Some(name), levels.level(name), inspector);
        }
        chain
    }

    /// One more at the end.
    #[must_use]
    pub fn with(mut self, name: Option<Name>, level: Level, inspector: Arc<dyn Inspector>) -> Self {
        if level > Level::Off {
            self.links.push(Link {
                name,
                level,
                inspector,
            });
        }
        self
    }

    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Looks at a request's target and fields.
    ///
    /// # Errors
    /// What is blocked; what was only flagged is in `flags`.
    pub fn head(
        self: &Arc<Self>,
        parts: &Parts,
        to: &Destination,
        flags: &mut Vec<Finding>,
    ) -> Result<(), Finding> {
        if self.is_empty() {
            return Ok(());
        }
        let mut told = Told::default();
        let mut look = |field: Field, bytes: &[u8]| self.whole(&field, bytes, to, &mut told, flags);
        let decoded = |text: &str| {
            let text = text.as_bytes();
            text.contains(&b'%').then(|| percent::decoded(text))
        };
        look(Field::Method, parts.method.as_str().as_bytes())?;
        let path = parts.uri.path();
        look(Field::Path, path.as_bytes())?;
        if let Some(decoded) = decoded(path) {
            look(Field::Path, &decoded)?;
        }
        if let Some(query) = parts.uri.query() {
            look(Field::Query, query.as_bytes())?;
            if let Some(decoded) = decoded(query) {
                look(Field::Query, &decoded)?;
            }
        }
        for (name, value) in &parts.headers {
            let field = Field::Header(name.as_str().to_owned());
            look(field.clone(), value.as_bytes())?;
            look(field, name.as_str().as_bytes())?;
        }
        Ok(())
    }

    /// Looks at trailers.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn trailers(
        self: &Arc<Self>,
        trailers: &HeaderMap,
        to: &Destination,
        flags: &mut Vec<Finding>,
    ) -> Result<(), Finding> {
        let mut told = Told::default();
        trailers.iter().try_for_each(|(name, value)| {
            let field = Field::Trailer(name.as_str().to_owned());
            self.whole(&field, value.as_bytes(), to, &mut told, flags)
        })
    }

    fn whole(
        &self,
        field: &Field,
        bytes: &[u8],
        to: &Destination,
        told: &mut Told,
        flags: &mut Vec<Finding>,
    ) -> Result<(), Finding> {
        let text = Text {
            bytes,
            at: 0,
            more: false,
            field,
            to,
            media: None,
            known: &self.known,
        };
        self.look(&text, told, flags).map(drop)
    }

    /// Asks every link that has not told yet. How many bytes at the end wait for more, for the sake of those that block.
    fn look(
        &self,
        text: &Text<'_>,
        told: &mut Told,
        flags: &mut Vec<Finding>,
    ) -> Result<usize, Finding> {
        let mut pending = 0;
        for (i, link) in self.links.iter().enumerate() {
            if told.has(i) {
                continue;
            }
            let finding = |code, level, found: Found| Finding {
                code,
                inspector: link.name,
                level,
                kind: found.kind,
                field: text.field.clone(),
                at: text.at + found.at as u64,
                length: found.length,
            };
            let looked = catch_unwind(AssertUnwindSafe(|| link.inspector.look(text)));
            let Ok(look) = looked else {
                let nothing = Found {
                    kind: "the inspector failed",
                    at: 0,
                    length: 0,
                };
                return Err(finding(FAILED, Level::Block, nothing));
            };
            if let Some(found) = look.found {
                let weak = formats::WEAK.contains(&found.kind);
                let level = if weak { Level::Flag } else { link.level };
                let finding = finding(link.inspector.code(), level, found);
                if level == Level::Block {
                    return Err(finding);
                }
                // A weak one says nothing of what comes behind it.
                let what = if level < link.level { i + WEAK } else { i };
                if !told.has(what) {
                    told.tell(what);
                    flags.push(finding);
                }
            }
            if link.level == Level::Block {
                pending = pending.max(look.pending.min(text.bytes.len()));
            }
        }
        Ok(pending)
    }

    /// What looks at a request's body.
    ///
    /// # Errors
    /// A body that cannot be looked through, where that is blocked.
    pub fn body(
        self: &Arc<Self>,
        headers: &HeaderMap,
        to: &Destination,
        flags: &mut Vec<Finding>,
    ) -> Result<Stream, Finding> {
        Stream::new(Arc::clone(self), headers, to.clone(), flags)
    }
}

/// Links that have flagged something: each does so once for a head, a body or a connection of messages.
#[derive(Clone, Copy, Debug, Default)]
struct Told(u64);

/// Where in it the weak findings of a link that blocks are.
const WEAK: usize = 32;

impl Told {
    fn has(self, link: usize) -> bool {
        self.0 >> (link % 64) & 1 == 1
    }

    fn tell(&mut self, link: usize) {
        self.0 |= 1 << (link % 64);
    }
}

// === impl Finding ===

impl Finding {
    /// The key in the config that says what is done about it.
    pub fn key(&self) -> Option<&'static str> {
        self.inspector.map(Name::as_str)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == FAILED {
            return write!(f, "an inspector failed at {}", self.field);
        }
        write!(f, "{} in {}", self.kind, self.field)?;
        if self.length > 0 {
            write!(f, ", {} bytes at {}", self.length, self.at)?;
        }
        Ok(())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("the method"),
            Self::Path => f.write_str("the path"),
            Self::Query => f.write_str("the query"),
            Self::Header(name) => write!(f, "the field {name}"),
            Self::Body => f.write_str("the body"),
            Self::Trailer(name) => write!(f, "the trailer {name}"),
            Self::Message => f.write_str("a WebSocket's message"),
        }
    }
}

/// What a browser sends of a form without files.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// The media type of a head: in lower case, without parameters.
pub fn media(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    (!essence.is_empty()).then(|| essence.to_ascii_lowercase())
}

#[cfg(test)]
mod alike;
#[cfg(test)]
mod tests;
