#![allow(clippy::unwrap_used)]
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::*;

/// One member as it is, whatever a builder would say to its path.
fn member(path: &str, kind: EntryType, size: u64, link: &str) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o4755);
    header.set_cksum();
    header
}

fn tar(members: &[(&str, EntryType, &[u8], &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, bytes, link) in members {
        let header = member(path, *kind, bytes.len() as u64, link);
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn file(path: &str) -> (&str, EntryType, &[u8], &str) {
    (path, EntryType::Regular, b"x", "")
}

fn link<'a>(path: &'a str, target: &'a str) -> (&'a str, EntryType, &'static [u8], &'a str) {
    (path, EntryType::Symlink, b"", target)
}

const DIRECTORY: EntryType = EntryType::Directory;

#[test]
fn files_and_links_are_read_by_their_one_path_gzipped_or_not() {
    let archive = tar(&[
        ("./", DIRECTORY, b"", ""),
        ("./a/", DIRECTORY, b"", ""),
        ("./a/", DIRECTORY, b"", ""),
        ("./a/install.sh", EntryType::Regular, b"#!/bin/sh\n", ""),
        file("b"),
        link("a/up", "../b"),
        link("a/beside", "install.sh"),
    ]);
    let read = Archive::read(&archive).unwrap();
    assert_eq!(read.files.keys().collect::<Vec<_>>(), ["a/install.sh", "b"]);
    assert_eq!(read.file("a/install.sh"), Some(&b"#!/bin/sh\n"[..]));
    assert_eq!(read.files["b"].mode, 0o755);
    assert_eq!(read.links["a/up"], "../b");
    assert_eq!(Archive::read(&gzip(&archive)).unwrap(), read);
    assert_eq!(Archive::read(&tar(&[])).unwrap(), Archive::default());
}

#[test]
fn a_long_path_is_read_in_either_of_its_spellings() {
    let long = format!("{}/x", "d".repeat(200));
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, &long, &b"x"[..]).unwrap();
    let read = Archive::read(&builder.into_inner().unwrap()).unwrap();
    assert!(read.file(&long).is_some());

    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([("path", long.as_bytes())])
        .unwrap();
    let header = member("short", EntryType::Regular, 1, "");
    builder.append(&header, &b"x"[..]).unwrap();
    let read = Archive::read(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(read.files.keys().collect::<Vec<_>>(), [&long]);
}

#[test]
fn a_path_that_leads_out_or_has_two_spellings_is_refused() {
    for bad in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/..",
        "..",
        "a//b",
        "a/./b",
        "././a",
        "a/",
        "a\n",
        "a\u{1b}[2J",
        "",
    ] {
        let refused = Archive::read(&tar(&[file(bad)])).unwrap_err();
        assert!(
            matches!(refused, ArchiveError::Path { .. }),
            "{bad:?}: {refused}"
        );
        assert!(!refused.to_string().contains(char::is_control), "{refused}");
    }
    let mut header = member("a", EntryType::Regular, 0, "");
    header.as_old_mut().name[1] = 0xff;
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, &b""[..]).unwrap();
    let refused = Archive::read(&builder.into_inner().unwrap()).unwrap_err();
    assert!(matches!(
        refused,
        ArchiveError::Path {
            why: "is not UTF-8",
            ..
        }
    ));

    // The long spelling of a path is held to the same.
    let mut builder = Builder::new(Vec::new());
    builder
        .append_pax_extensions([("path", &b"../../x"[..])])
        .unwrap();
    builder
        .append(&member("short", EntryType::Regular, 1, ""), &b"x"[..])
        .unwrap();
    let refused = Archive::read(&builder.into_inner().unwrap()).unwrap_err();
    assert!(matches!(refused, ArchiveError::Path { .. }), "{refused}");
}

#[test]
fn a_link_that_leads_out_is_refused() {
    for (path, target) in [
        ("l", "/etc/passwd"),
        ("l", "../x"),
        ("a/l", "../../x"),
        ("a/l", "b/../../x"),
        ("l", ""),
    ] {
        let refused = Archive::read(&tar(&[link(path, target)])).unwrap_err();
        assert!(
            matches!(refused, ArchiveError::Link { .. }),
            "{target}: {refused}"
        );
    }
}

#[test]
fn nothing_lies_behind_a_link_or_in_a_file_or_comes_twice() {
    for bad in [
        tar(&[file("a"), file("a")]),
        tar(&[file("a"), file("./a")]),
        tar(&[link("a", "b"), file("a")]),
        tar(&[link("a", "b"), file("a/x")]),
        tar(&[file("a/x"), link("a", "b")]),
        tar(&[file("a"), file("a/b/c")]),
        tar(&[file("a"), ("a/", DIRECTORY, b"", "")]),
        tar(&[link("a", "b"), ("a/c", DIRECTORY, b"", "")]),
    ] {
        let refused = Archive::read(&bad).unwrap_err();
        assert!(matches!(refused, ArchiveError::Twice { .. }), "{refused}");
    }
    assert!(Archive::read(&tar(&[file("a-b"), file("a/b"), file("ab")])).is_ok());
}

#[test]
fn what_is_neither_file_nor_directory_nor_link_is_refused() {
    for kind in [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::XGlobalHeader,
        EntryType::new(b'Z'),
    ] {
        let refused = Archive::read(&tar(&[("x", kind, b"", "")])).unwrap_err();
        // The library refuses a sparse file without a map by itself.
        assert!(
            matches!(
                refused,
                ArchiveError::Kind { .. } | ArchiveError::Malformed(_)
            ),
            "{kind:?}: {refused}"
        );
    }
}

#[test]
fn sizes_and_ends_that_lie_are_refused() {
    let whole = tar(&[file("a")]);
    for cut in [0, 1, 512, 513, 1024, 1535] {
        assert!(Archive::read(&whole[..cut]).is_err(), "{cut}");
    }
    let mut behind = whole.clone();
    behind.extend(tar(&[file("b")]));
    assert_eq!(
        Archive::read(&behind),
        Err(ArchiveError::Malformed(
            "something lies behind its end".to_owned()
        ))
    );
    let gzipped = gzip(&whole);
    assert!(Archive::read(&gzipped[..gzipped.len() - 1]).is_err());
    assert!(Archive::read(&[gzipped.as_slice(), b"behind"].concat()).is_err());

    // More is announced than there is.
    let mut lies = member("a", EntryType::Regular, 700, "").as_bytes().to_vec();
    lies.extend([0; 1024]);
    assert!(Archive::read(&lies[..1024]).is_err());
    for size in [u64::MAX, u64::MAX - 600, 1 << 62] {
        let mut header = member("a", EntryType::Regular, size, "");
        header.set_cksum();
        let mut lies = header.as_bytes().to_vec();
        lies.extend([0; 1024]);
        assert!(Archive::read(&lies).is_err(), "{size}");
    }
}

#[test]
fn members_paths_and_depth_have_a_bound() {
    let many = |n: usize| {
        let names: Vec<String> = (0..n).map(|n| n.to_string()).collect();
        let members: Vec<_> = names.iter().map(|name| file(name)).collect();
        tar(&members)
    };
    assert_eq!(
        Archive::read(&many(MAX_ENTRIES)).unwrap().files.len(),
        MAX_ENTRIES
    );
    assert_eq!(
        Archive::read(&many(MAX_ENTRIES + 1)),
        Err(ArchiveError::Entries)
    );

    let named = |path: &str| {
        let mut builder = Builder::new(Vec::new());
        builder
            .append_pax_extensions([("path", path.as_bytes())])
            .unwrap();
        let header = member("short", EntryType::Regular, 1, "");
        builder.append(&header, &b"x"[..]).unwrap();
        Archive::read(&builder.into_inner().unwrap())
    };
    assert!(named(&"n".repeat(MAX_PATH)).is_ok());
    assert!(matches!(
        named(&"n".repeat(MAX_PATH + 1)),
        Err(ArchiveError::Path { .. })
    ));
    assert!(named(&vec!["d"; MAX_DEPTH].join("/")).is_ok());
    assert!(matches!(
        named(&vec!["d"; MAX_DEPTH + 1].join("/")),
        Err(ArchiveError::Path { .. })
    ));

    let led = |target: &str| {
        let mut builder = Builder::new(Vec::new());
        builder
            .append_pax_extensions([("linkpath", target.as_bytes())])
            .unwrap();
        let header = member("l", EntryType::Symlink, 0, "short");
        builder.append(&header, &b""[..]).unwrap();
        Archive::read(&builder.into_inner().unwrap())
    };
    assert_eq!(led(&"n".repeat(MAX_PATH)).unwrap().links.len(), 1);
    assert!(matches!(
        led(&"n".repeat(MAX_PATH + 1)),
        Err(ArchiveError::Link { .. })
    ));
}

#[test]
fn a_file_and_the_whole_have_a_bound_gzipped_or_not() {
    let size = usize::try_from(MAX_FILE).unwrap();
    let bytes = vec![0; size + 1];
    let with = |sizes: &[usize]| {
        let members: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .zip(sizes)
            .map(|(name, size)| (*name, EntryType::Regular, &bytes[..*size], ""))
            .collect();
        tar(&members)
    };
    assert!(Archive::read(&with(&[size])).is_ok());
    assert_eq!(
        Archive::read(&with(&[size + 1])),
        Err(ArchiveError::File {
            path: "a".to_owned()
        })
    );

    // Four headers and two blocks at the end are a part of the whole.
    let last = size - 6 * 512;
    let whole = with(&[size, size, size, last]);
    assert_eq!(whole.len() as u64, MAX_BYTES);
    assert!(Archive::read(&whole).is_ok());
    assert!(Archive::read(&gzip(&whole)).is_ok());
    let more = [whole.as_slice(), &[0]].concat();
    assert_eq!(Archive::read(&more), Err(ArchiveError::Bytes));
    let bomb = gzip(&more);
    assert!(bomb.len() < 1024 * 1024);
    assert_eq!(Archive::read(&bomb), Err(ArchiveError::Bytes));
}
