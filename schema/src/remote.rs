//! A repository on a code host, as the address of a git remote names it (git-clone(1), "GIT URLS"). What a credential is held to by
//! default is read from it, so that nothing which could mean another path comes out.

use std::fmt;

/// Longest address that is read, in bytes.
pub const MAX_ADDRESS_BYTES: usize = 1024;
/// Longest owner and longest name, in bytes.
pub const MAX_PART_BYTES: usize = 100;

/// `OWNER/NAME`, and the host that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    host: String,
    owner: String,
    name: String,
}

// === impl Remote ===

impl Remote {
    /// From `https://HOST/OWNER/NAME[.git]`, `ssh://git@HOST/OWNER/NAME[.git]` or `git@HOST:OWNER/NAME[.git]`; nothing of any other form.
    pub fn parse(address: &str) -> Option<Self> {
        if address.len() > MAX_ADDRESS_BYTES {
            return None;
        }
        let (authority, path) = match address.split_once("://") {
            Some(("https" | "http" | "ssh" | "git", rest)) => rest.split_once('/')?,
            Some(_) => return None,
            None => address.split_once(':')?,
        };
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let host = match host.split_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            Some(_) => return None,
            None => host,
        };
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let (owner, name) = path.split_once('/')?;
        let name = name.strip_suffix(".git").unwrap_or(name);
        let is_host = !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
        (is_host && is_part(owner) && is_part(name) && !is_anothers(name)).then(|| Self {
            host: host.to_ascii_lowercase(),
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    pub fn host(&self) -> &str {
        &self.host
    }
}

/// What stands in a path as it is, and in a glob for itself.
fn is_part(text: &str) -> bool {
    (1..=MAX_PART_BYTES).contains(&text.len())
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether code hosts take a name for another repository's: what ends so once more, and the wiki of one.
fn is_anothers(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".git", ".wiki"].iter().any(|end| name.ends_with(end))
}

/// `OWNER/NAME`.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_one_repository_or_none() {
        for address in [
            "https://github.com/acme/widget.git",
            "https://github.com/acme/widget",
            "https://github.com/acme/widget/",
            "https://me:token@GitHub.com:443/acme/widget.git",
            "ssh://git@github.com:22/acme/widget.git",
            "git@github.com:acme/widget.git",
            "github.com:/acme/widget",
        ] {
            let remote = Remote::parse(address);
            let said = remote.map(|remote| (remote.to_string(), remote.host().to_owned()));
            let expected = ("acme/widget".to_owned(), "github.com".to_owned());
            assert_eq!(said, Some(expected), "{address}");
        }
        for address in [
            "",
            "/srv/acme/widget.git",
            "file:///srv/acme/widget",
            "ext::sh -c evil",
            "https://github.com/acme",
            "https://github.com/acme/",
            "https://github.com//widget",
            "https://github.com/acme/widget/more",
            "https://github.com/acme/*",
            "https://github.com/**/widget",
            "https://github.com/../widget",
            "https://github.com/acme/..",
            "https://github.com/acme/.git",
            "https://github.com/acme/widget.git.git",
            "https://github.com/acme/widget.GIT",
            "https://github.com/acme/widget.wiki.git",
            "https://github.com/acme/widget.wiki",
            "https://github.com/acme/wid%67et",
            "https://github.com/acme/widget?x",
            "https://git hub.com/acme/widget",
            "https://github.com:x/acme/widget",
            "https://@/acme/widget",
        ] {
            assert_eq!(Remote::parse(address), None, "{address}");
        }
    }

    #[test]
    fn an_address_and_its_parts_are_bounded() {
        let of = |n: usize| Remote::parse(&format!("https://h.test/{}/x", "a".repeat(n)));
        assert!(of(MAX_PART_BYTES).is_some() && of(MAX_PART_BYTES + 1).is_none());
        let long = |n: usize| {
            let address = "@h.test:a/b";
            Remote::parse(&format!("{}{address}", "u".repeat(n - address.len())))
        };
        assert!(long(MAX_ADDRESS_BYTES).is_some() && long(MAX_ADDRESS_BYTES + 1).is_none());
    }
}
