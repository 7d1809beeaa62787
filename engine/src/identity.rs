//! Who the agent is inside: never root unless the config says root in words. Works from the image's own /etc/passwd and
//! /etc/group (`contents`), so that a user's home is known before the container is made, and a workspace owner that the
//! image does not know gets an entry.

use serde::{Deserialize, Serialize};

/// Where a user whom the image does not know lives.
pub const HOME: &str = "/home/agent";
/// Uid and gid when neither config, image nor workspace names a user that is not root.
pub const FALLBACK: (u32, u32) = (1000, 1000);

/// The image's account files, as they are in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    pub passwd: String,
    pub group: String,
}

/// Who runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As the engine is told: `node`, `1000:1000`.
    pub spec: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    /// The image has no such user: home is a tmpfs and an entry is added to a private copy of passwd.
    pub made_up: bool,
    /// Which of the four said so, for the banner.
    pub by: &'static str,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdentityError {
    #[error("the image has no user named {0}")]
    Unknown(String),
    #[error("{0} is root in this image under another name; to run as root, say root")]
    RootByAnotherName(String),
    #[error("{0} is not a user: a name or a number, with an optional :group")]
    Malformed(String),
}

impl Accounts {
    /// uid, gid and home of a user by name.
    fn by_name(&self, name: &str) -> Option<(u32, u32, String)> {
        self.users()
            .find(|(n, ..)| *n == name)
            .map(|(_, uid, gid, home)| (uid, gid, home.to_owned()))
    }

    fn by_uid(&self, uid: u32) -> Option<(u32, String)> {
        self.users()
            .find(|(_, u, ..)| *u == uid)
            .map(|(_, _, gid, home)| (gid, home.to_owned()))
    }

    fn users(&self) -> impl Iterator<Item = (&str, u32, u32, &str)> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            Some((
                *fields.first()?,
                fields.get(2)?.parse().ok()?,
                fields.get(3)?.parse().ok()?,
                *fields.get(5)?,
            ))
        })
    }

    fn gid_of(&self, name: &str) -> Option<u32> {
        self.group.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            (*fields.first()? == name).then(|| fields.get(2)?.parse().ok())?
        })
    }

    /// The files with an entry for `identity`, where they have none.
    pub fn with(&self, identity: &Identity) -> Self {
        let mut accounts = self.clone();
        let line = |text: &mut String, entry: String| {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&entry);
        };
        let name = if self.by_name("agent").is_none() {
            "agent"
        } else {
            "agentcontainer"
        };
        if self.by_uid(identity.uid).is_none() {
            line(
                &mut accounts.passwd,
                format!(
                    "{name}:x:{}:{}::{}:/bin/sh\n",
                    identity.uid, identity.gid, identity.home
                ),
            );
        }
        let has_gid = self
            .group
            .lines()
            .any(|l| l.split(':').nth(2).and_then(|g| g.parse().ok()) == Some(identity.gid));
        if !has_gid {
            line(&mut accounts.group, format!("{name}:x:{}:\n", identity.gid));
        }
        accounts
    }
}

/// Chooses who runs. `configured` is containerUser or remoteUser; `image_user` the image's USER; `owner` the workspace's
/// owner.
pub fn choose(
    configured: Option<&str>,
    image_user: &str,
    owner: (u32, u32),
    accounts: &Accounts,
) -> Result<Identity, IdentityError> {
    if let Some(spec) = configured.filter(|s| !s.is_empty()) {
        let identity = resolve(spec, accounts, "config")?;
        let user = spec.split(':').next().unwrap_or_default();
        let in_words = user == "root" || user.bytes().all(|b| b == b'0');
        if identity.uid == 0 && !in_words {
            return Err(IdentityError::RootByAnotherName(spec.to_owned()));
        }
        return Ok(identity);
    }
    if !image_user.is_empty() {
        let identity = resolve(image_user, accounts, "image")?;
        if identity.uid != 0 {
            return Ok(identity);
        }
    }
    let ((uid, gid), by) = if owner.0 == 0 {
        (FALLBACK, "default")
    } else {
        (owner, "workspace owner")
    };
    Ok(numeric(uid, Some(gid), accounts, by))
}

fn resolve(spec: &str, accounts: &Accounts, by: &'static str) -> Result<Identity, IdentityError> {
    let malformed = || IdentityError::Malformed(spec.to_owned());
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) if !user.is_empty() && !group.is_empty() => (user, Some(group)),
        Some(_) => return Err(malformed()),
        None => (spec, None),
    };
    let gid = match group {
        None => None,
        Some(group) => Some(
            group
                .parse()
                .ok()
                .or_else(|| accounts.gid_of(group))
                .ok_or_else(|| IdentityError::Unknown(spec.to_owned()))?,
        ),
    };
    if let Some((uid, own_gid, home)) = accounts.by_name(user) {
        return Ok(Identity {
            spec: spec.to_owned(),
            uid,
            gid: gid.unwrap_or(own_gid),
            home,
            made_up: false,
            by,
        });
    }
    match user.parse::<u32>() {
        Ok(uid) => Ok(numeric(uid, gid, accounts, by)),
        // An image without /etc/passwd still has its root.
        Err(_) if user == "root" => Ok(numeric(0, gid, accounts, by)),
        Err(_) => Err(IdentityError::Unknown(user.to_owned())),
    }
}

fn numeric(uid: u32, gid: Option<u32>, accounts: &Accounts, by: &'static str) -> Identity {
    match accounts.by_uid(uid) {
        Some((own_gid, home)) if home.starts_with('/') && home != "/" => {
            let gid = gid.unwrap_or(own_gid);
            Identity {
                spec: format!("{uid}:{gid}"),
                uid,
                gid,
                home,
                made_up: false,
                by,
            }
        }
        _ => {
            let gid = gid.unwrap_or(if uid == 0 { 0 } else { uid });
            Identity {
                spec: format!("{uid}:{gid}"),
                uid,
                gid,
                home: if uid == 0 { "/root" } else { HOME }.to_owned(),
                made_up: uid != 0,
                by,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/bash\ntoor:x:0:0::/root:/bin/sh\nbad\n".into(),
            group: "root:x:0:\nnode:x:1000:\nstaff:x:50:node".into(),
        }
    }

    #[test]
    fn root_only_when_the_config_says_so() {
        let by = |configured, image, owner| choose(configured, image, owner, &accounts()).unwrap();
        assert_eq!(by(Some("root"), "node", (7, 7)).uid, 0);
        assert_eq!(
            choose(Some("toor"), "", (7, 7), &accounts()),
            Err(IdentityError::RootByAnotherName("toor".into()))
        );
        for image in ["root", "0", "0:0", "root:root", "toor", ""] {
            let chosen = by(None, image, (0, 0));
            assert_eq!(
                (chosen.uid, chosen.spec.as_str()),
                (1000, "1000:1000"),
                "{image}"
            );
            assert_eq!(by(None, image, (501, 20)).spec, "501:20");
        }
    }

    #[test]
    fn the_config_wins_over_the_image_and_the_image_over_the_owner() {
        let node = choose(None, "node", (7, 7), &accounts()).unwrap();
        assert_eq!(
            (node.uid, node.gid, node.home.as_str(), node.made_up),
            (1000, 1000, "/home/node", false)
        );
        assert_eq!(node.spec, "node");
        let named = choose(Some("1000:staff"), "root", (7, 7), &accounts()).unwrap();
        assert_eq!(
            (named.uid, named.gid, named.home.as_str()),
            (1000, 50, "/home/node")
        );
        assert_eq!(
            choose(Some("nobody"), "", (7, 7), &accounts()),
            Err(IdentityError::Unknown("nobody".into()))
        );
        assert!(matches!(
            choose(Some("a:"), "", (7, 7), &accounts()),
            Err(IdentityError::Malformed(_))
        ));
    }

    #[test]
    fn a_user_the_image_does_not_know_gets_a_home_and_an_entry() {
        let chosen = choose(None, "", (501, 20), &accounts()).unwrap();
        assert!(chosen.made_up);
        assert_eq!(chosen.home, HOME);
        let files = accounts().with(&chosen);
        assert!(
            files
                .passwd
                .ends_with("agent:x:501:20::/home/agent:/bin/sh\n")
        );
        assert!(files.group.ends_with("staff:x:50:node\nagent:x:20:\n"));
        assert_eq!(choose(Some("agent"), "", (0, 0), &files).unwrap().uid, 501);
        let empty = choose(None, "", (0, 0), &Accounts::default()).unwrap();
        assert_eq!(
            Accounts::default().with(&empty).passwd,
            "agent:x:1000:1000::/home/agent:/bin/sh\n"
        );
    }
}
