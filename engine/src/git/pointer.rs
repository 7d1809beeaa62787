//! What a `.git` that is a file says, and a `commondir`: exactly as git reads them (setup.c, `read_gitfile_gently` and `get_common_dir_noenv`).
//! Spaces are part of a path, and a path has no null byte: git's ends there.

/// The longest of the files that say where something is, in bytes.
pub const MAX_POINTER: u64 = 4095;

/// Where a `.git` leads.
pub fn gitdir(bytes: &[u8]) -> Option<&str> {
    let is_short = bytes.len() as u64 <= MAX_POINTER;
    path(bytes.strip_prefix(b"gitdir: ").filter(|_| is_short)?)
}

/// The one line of a file that holds a path.
pub fn path(bytes: &[u8]) -> Option<&str> {
    if bytes.len() as u64 > MAX_POINTER {
        return None;
    }
    let path = std::str::from_utf8(bytes).ok()?;
    let path = path.trim_end_matches(['\n', '\r']);
    (!path.is_empty() && !path.contains(char::is_control)).then_some(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pointer_is_read_as_git_reads_it() {
        for (text, to) in [
            ("gitdir: a", Some("a")),
            ("gitdir: /a b/c\n", Some("/a b/c")),
            ("gitdir: a\r\n\n", Some("a")),
            ("gitdir:  a ", Some(" a ")),
            ("gitdir:a", None),
            (" gitdir: a", None),
            ("gitdir: ", None),
            ("gitdir: \n", None),
            ("gitdir: /evil\0/../../w/x", None),
            ("gitdir: a\nb", None),
            ("a", None),
        ] {
            assert_eq!(gitdir(text.as_bytes()), to, "{text:?}");
        }
        assert_eq!(gitdir(b"gitdir: \xff"), None);
        let long = |n: u64| path(&vec![b'a'; n as usize]).is_some();
        assert!(long(MAX_POINTER) && !long(MAX_POINTER + 1));
        let long =
            |n: u64| gitdir(format!("gitdir: {}", "a".repeat(n as usize - 8)).as_bytes()).is_some();
        assert!(long(MAX_POINTER) && !long(MAX_POINTER + 1));
    }

    /// The control: what git itself makes of the same files.
    #[test]
    fn git_takes_the_same_path_from_it() {
        use std::process::Command;
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            Command::new("git")
                .args(args)
                .current_dir(dir.path())
                .output()
                .unwrap()
        };
        for name in ["real", " spaced "] {
            assert!(git(&["init", "-q", "--bare", name]).status.success());
        }
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        for text in [
            "gitdir: ../real",
            "gitdir: ../real\r\n\n",
            "gitdir: ../ spaced \n",
            "gitdir: ../real ",
            "gitdir:../real",
            " gitdir: ../real",
            "gitdir: ../none\0/../real",
            "gitdir: ../real\n\nx",
        ] {
            std::fs::write(dir.path().join("tree/.git"), text).unwrap();
            let taken = git(&["-C", "tree", "rev-parse", "--git-dir"])
                .status
                .success();
            let read = gitdir(text.as_bytes()).map(|to| dir.path().join("tree").join(to));
            assert_eq!(read.is_some_and(|to| to.is_dir()), taken, "{text:?}");
        }
    }
}
