//! A body that is something else than its head says: the first bytes of formats that have such, against the declared type.
//! A body in an encoding that is not read is told of by `view` under the same name.

use super::{Field, Found, Inspector, Look, Text};

/// First bytes that decide.
const ENOUGH: usize = 16;

/// What begins with what, and the media types that may hold it.
const MAGIC: &[(&[u8], &str, &[&str])] = &[
    (
        b"\x7fELF",
        "an ELF program",
        &[
            "application/x-elf",
            "application/x-executable",
            "application/x-sharedlib",
        ],
    ),
    (
        b"\x1f\x8b\x08",
        "gzip",
        &[
            "application/gzip",
            "application/x-gzip",
            "application/x-tar",
            "application/x-gtar",
            "application/x-compressed-tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ],
    ),
    (
        b"PK\x03\x04",
        "zip",
        &[
            "application/zip",
            "application/x-zip-compressed",
            "application/java-archive",
            "application/epub+zip",
            "application/vnd.android.package-archive",
        ],
    ),
    (b"\x89PNG\r\n\x1a\n", "PNG", &["image/png", "image/apng"]),
    (
        b"\xff\xd8\xff",
        "JPEG",
        &["image/jpeg", "image/jpg", "image/pjpeg"],
    ),
    (b"GIF87a", "GIF", &["image/gif"]),
    (b"GIF89a", "GIF", &["image/gif"]),
    (b"%PDF-", "PDF", &["application/pdf"]),
    (b"\xfd7zXZ\x00", "xz", &["application/x-xz"]),
    (
        b"\x28\xb5\x2f\xfd",
        "zstd",
        &[
            "application/zstd",
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ],
    ),
    (
        b"BZh",
        "bzip2",
        &["application/x-bzip2", "application/x-bzip"],
    ),
    (
        b"7z\xbc\xaf\x27\x1c",
        "7z",
        &["application/x-7z-compressed"],
    ),
    (b"\x00asm", "WebAssembly", &["application/wasm"]),
    (
        b"SQLite format 3\x00",
        "SQLite",
        &["application/vnd.sqlite3", "application/x-sqlite3"],
    ),
    (
        b"\xca\xfe\xba\xbe",
        "a Java class or Mach-O",
        &["application/java-vm", "application/x-mach-binary"],
    ),
    (
        b"\xcf\xfa\xed\xfe",
        "Mach-O",
        &["application/x-mach-binary"],
    ),
    (b"PACK\x00\x00\x00", "a git pack", &["application/x-git"]),
    (
        b"-----BEGIN",
        "PEM",
        &[
            "text/plain",
            "application/x-pem-file",
            "application/x-x509-ca-cert",
            "application/pem-certificate-chain",
            "application/pkix-cert",
        ],
    ),
];

pub struct ContentType;

impl Inspector for ContentType {
    fn code(&self) -> &'static str {
        "inspection-content-type"
    }

    fn look(&self, text: &Text<'_>) -> Look {
        let (0, Field::Body, Some(media)) = (text.at, text.field, text.media) else {
            return Look::default();
        };
        // What nothing is said of need not wait: a stream may begin with a short message and expect an answer.
        let told = says_what_it_is(media) || media.starts_with("image/");
        if told && text.bytes.len() < ENOUGH && text.more {
            return Look {
                found: None,
                pending: text.bytes.len(),
            };
        }
        let found = contradiction(media, text.bytes);
        Look {
            found: found.map(|kind| Found {
                kind,
                at: 0,
                length: 0,
            }),
            pending: 0,
        }
    }
}

/// What a body is, where its declared type says that it is something else.
fn contradiction(media: &str, body: &[u8]) -> Option<&'static str> {
    let what = MAGIC.iter().find(|(magic, ..)| body.starts_with(magic));
    match what {
        Some((_, kind, may)) => {
            (says_what_it_is(media) && !may.contains(&media) && !family(media, kind))
                .then_some(*kind)
        }
        // It says that it is one of these and is none.
        None if body.is_empty() => None,
        None => MAGIC
            .iter()
            .any(|(.., may)| media.starts_with("image/") && may.contains(&media))
            .then_some("no image of its type"),
    }
}

/// Types that say nothing of their bytes, or whose bytes are their own.
fn says_what_it_is(media: &str) -> bool {
    !matches!(
        media,
        "application/octet-stream"
            | "binary/octet-stream"
            | "application/x-www-form-urlencoded-raw"
    ) && !media.starts_with("multipart/")
        && !media.starts_with("application/x-git-")
        && !media.starts_with("application/grpc")
        && !media.starts_with("application/vnd.git-lfs")
}

/// Office files and packages are zip inside, layers are gzip, whatever their name.
fn family(media: &str, kind: &str) -> bool {
    match kind {
        "zip" => {
            media.ends_with("+zip")
                || media.starts_with("application/vnd.openxmlformats")
                || media.starts_with("application/vnd.oasis")
        }
        "gzip" => media.ends_with("gzip"),
        "zstd" => media.ends_with("zstd"),
        _ => false,
    }
}
