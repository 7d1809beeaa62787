//! Where an image keeps the certificates that its programs trust. What such a path leads to is followed inside the image,
//! link by link: an image is a stranger's, and our mounts go where its links end.

use std::collections::VecDeque;

/// One file with every certificate: Debian, Ubuntu, Alpine; Alpine and BSD's way; Fedora and RHEL, old and new; SUSE; Nix.
pub const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/certs/ca-bundle.crt",
];
/// The JVM's: Debian and Alpine, Fedora and RHEL, SUSE.
pub const KEYSTORES: &[&str] = &[
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/java/cacerts",
    "/var/lib/ca-certificates/java-cacerts",
];

/// Names looked at until a path must have ended.
pub const MAX_STEPS: usize = 64;
/// The longest path that is followed, in bytes.
const MAX_PATH: usize = 4096;

/// What is at a path, the last link not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    File,
    Directory,
    Link(String),
    /// Nothing, or nothing that holds certificates.
    Other,
}

/// Where `path` ends, if that is what is wanted, a file or a directory, and within [`MAX_STEPS`]. `look` is asked with paths that
/// have no link in front of their last name.
pub async fn follow<E>(
    path: &str,
    wanted: Found,
    mut look: impl AsyncFnMut(&str) -> Result<Found, E>,
) -> Result<Option<String>, E> {
    if !path.starts_with('/') {
        return Ok(None);
    }
    let mut left: VecDeque<String> = names(path);
    let mut at: Vec<String> = Vec::new();
    for _ in 0..MAX_STEPS {
        let Some(name) = left.pop_front() else {
            return Ok(None);
        };
        match name.as_str() {
            ".." => {
                at.pop();
                continue;
            }
            _ => at.push(name),
        }
        let here = format!("/{}", at.join("/"));
        if here.len() > MAX_PATH || here.contains(char::is_control) {
            return Ok(None);
        }
        match look(&here).await? {
            found if left.is_empty() && found == wanted => return Ok(Some(here)),
            Found::Directory => {}
            Found::Link(to) if to.len() <= MAX_PATH => {
                if to.starts_with('/') {
                    at.clear();
                } else {
                    at.pop();
                }
                for name in names(&to).into_iter().rev() {
                    left.push_front(name);
                }
                if left.len() > MAX_STEPS {
                    return Ok(None);
                }
            }
            Found::Link(_) | Found::File | Found::Other => return Ok(None),
        }
    }
    Ok(None)
}

fn names(path: &str) -> VecDeque<String> {
    path.split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .take(MAX_STEPS + 1)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    fn followed(links: &[(&str, &str)], files: &[&str], path: &str) -> Option<String> {
        followed_to(Found::File, links, files, path)
    }

    fn followed_to(
        wanted: Found,
        links: &[(&str, &str)],
        files: &[&str],
        path: &str,
    ) -> Option<String> {
        let links: BTreeMap<_, _> = links.iter().copied().collect();
        let look = async |path: &str| -> Result<Found, Infallible> {
            let below = format!("{path}/");
            let is_directory = || {
                let known = links.keys().chain(files);
                known.into_iter().any(|known| known.starts_with(&below))
            };
            Ok(match links.get(path) {
                Some(to) => Found::Link((*to).to_owned()),
                None if files.contains(&path) => Found::File,
                None if is_directory() => Found::Directory,
                None => Found::Other,
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(follow(path, wanted, look)).unwrap()
    }

    #[test]
    fn a_path_is_followed_to_the_file_it_ends_at() {
        let fedora = &[
            (
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            ),
            ("/etc/ssl/certs", "../pki/tls/certs"),
            ("/lib", "usr/./lib"),
            ("/usr/lib/bundle", "//lib//other"),
        ];
        let files = &[
            "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            "/usr/lib/other",
        ];
        for path in [
            "/etc/ssl/certs/ca-bundle.crt",
            "/etc/pki/tls/certs/ca-bundle.crt",
            files[0],
        ] {
            assert_eq!(
                followed(fedora, files, path).as_deref(),
                Some(files[0]),
                "{path}"
            );
        }
        assert_eq!(
            followed(fedora, files, "/lib/bundle").as_deref(),
            Some("/usr/lib/other")
        );
        for none in [
            "/etc/ssl/cert.pem",
            "/etc/pki",
            "/",
            "",
            "etc/pki",
            "/usr/lib/other/x",
        ] {
            assert_eq!(followed(fedora, files, none), None, "{none}");
        }
    }

    #[test]
    fn a_path_is_followed_to_the_directory_it_ends_at() {
        let suse = &[("/etc/ssl/certs", "../../var/lib/ca-certificates/pem")];
        let files = &["/var/lib/ca-certificates/pem/one.pem"];
        let directory = |path: &str| followed_to(Found::Directory, suse, files, path);
        for path in ["/etc/ssl/certs", "/etc/ssl/certs/"] {
            let found = directory(path);
            assert_eq!(found.as_deref(), Some("/var/lib/ca-certificates/pem"));
        }
        for none in [files[0], "/etc/ssl/certs/one.pem", "/etc/pki/tls/certs"] {
            assert_eq!(directory(none), None, "{none}");
        }
        assert_eq!(followed(suse, files, "/etc/ssl/certs"), None);
    }

    #[test]
    fn no_link_leads_out_of_the_image() {
        let links = &[
            ("/a/up", "../../../../../../b"),
            ("/a/self", "self"),
            ("/a/x", "y"),
            ("/a/y", "x"),
        ];
        let files = &["/b", "/a/file"];
        assert_eq!(followed(links, files, "/a/up").as_deref(), Some("/b"));
        assert_eq!(
            followed(links, files, "/../../a/./file").as_deref(),
            Some("/a/file")
        );
        assert_eq!(followed(links, files, "/a/self"), None);
        assert_eq!(followed(links, files, "/a/x"), None);
        let odd = &[("/a/l", "odd\u{1b}name"), ("/a/long", &*"n/".repeat(4096))];
        assert_eq!(followed(odd, &["/a/odd\u{1b}name"], "/a/l"), None);
        assert_eq!(followed(odd, &["/b"], "/a/long"), None);
    }

    #[test]
    fn as_many_steps_as_the_bound_are_taken_and_no_more() {
        let chain = |n: usize| {
            // The first name is a directory, then a link each step, then the file.
            let links: Vec<(String, String)> = (0..n - 2)
                .map(|i| (format!("/d/{i}"), format!("/d/{}", i + 1)))
                .collect();
            links
        };
        // Every link costs two names: the directory and itself.
        let run = |n: usize| {
            let links = chain(n);
            let links: Vec<_> = links
                .iter()
                .map(|(a, b)| (a.as_str(), b.as_str()))
                .collect();
            let file = format!("/d/{}", n - 2);
            followed(&links, &[&file], "/d/0").is_some()
        };
        assert!(run(MAX_STEPS / 2 + 1));
        assert!(!run(MAX_STEPS / 2 + 2));
    }
}
