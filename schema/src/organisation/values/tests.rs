#![allow(clippy::unwrap_used)]
use super::*;

fn all<T: FromStr + fmt::Display>(fit: &[(&str, &str)], unfit: &[&str])
where
    T::Err: fmt::Debug,
{
    for (text, shown) in fit {
        assert_eq!(text.parse::<T>().unwrap().to_string(), *shown, "{text}");
        assert_eq!(shown.parse::<T>().unwrap().to_string(), *shown, "{shown}");
    }
    for text in unfit {
        assert!(text.parse::<T>().is_err(), "{text:?}");
    }
}

fn same<'t>(texts: &[&'t str]) -> Vec<(&'t str, &'t str)> {
    texts.iter().map(|text| (*text, *text)).collect()
}

#[test]
fn texts_have_one_meaning_each() {
    all::<Time>(
        &[
            ("2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
            ("2026-11-01T01:00:00+01:00", "2026-11-01T00:00:00Z"),
        ],
        &[
            "",
            "2026-11-01",
            "2026-11-01 00:00:00Z",
            "2026-11-01T00:00:00",
            "2026-13-01T00:00:00Z",
            "2026-11-01T00:00:00+01:00[Europe/Berlin]",
            "20261101T000000Z",
            "1700000000",
        ],
    );
    all::<Age>(
        &[
            ("12h", "12h"),
            ("48h", "2d"),
            ("90d", "90d"),
            ("4w", "4w"),
            ("99999w", "99999w"),
        ],
        &[
            "", "0d", "d", "1", "1m", "-1d", "01d", "100000d", "1.5d", "1 d",
        ],
    );
    all::<OrganisationName>(
        &same(&["acme", "acme.example", "A_b-1"]),
        &["", "a b", "a/b", "é", &"a".repeat(65)],
    );
    all::<RegistryName>(
        &[
            ("GHCR.io", "ghcr.io"),
            ("index.docker.io", "docker.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("[::1]:5000", "[::1]:5000"),
        ],
        &["", "ghcr.io/acme", "https://ghcr.io", "*.ghcr.io", "a:0"],
    );
    all::<SourcePattern>(
        &[
            ("env", "env"),
            ("op://Engineering", "op://Engineering"),
            (
                "vault://Vault.acme.example:8300",
                "vault://vault.acme.example:8300",
            ),
            ("github-device://github.com", "github-device://github.com"),
        ],
        &[
            "",
            "*",
            "aws",
            "env://X",
            "op://",
            "op://a/b",
            "vault://a/b",
            "vault://*",
            "keyring://x",
            "stdin://",
        ],
    );
    all::<NetworkBound>(
        &same(&[
            "10.0.0.0/8",
            "10.1.2.3",
            "10.1.2.3:22",
            "10.20.0.0/16:5432",
            "0.0.0.0/0",
        ]),
        &[
            "",
            "10.0.0.1/8",
            "10.0.0.0/8:0",
            "10.0.0.0/8:",
            "fd00::/8",
            "example.com",
            "10.0.0.0/33",
        ],
    );
    all::<LinuxCapability>(
        &same(&["CAP_NET_BIND_SERVICE"]),
        &["", "CAP_", "cap_net_raw", "NET_RAW", "CAP_A B"],
    );
    all::<PathPattern>(
        &same(&["/workspace/**", "**/.env", "/a/*/b"]),
        &[
            "", "a", "/", "/a/../b", "/a//b", "**", ".env", "/a\n", "/**/a", "/proc/1", "/a/b**",
        ],
    );
    all::<PackageType>(&same(&["npm", "pypi", "golang"]), &["", "NPM", "1a", "a b"]);
    all::<PackageName>(&same(&["event-stream", "@scope/name"]), &["", "a b", "é"]);
    all::<VersionRange>(
        &[
            ("*", "*"),
            (">=1.2.0  <1.4.3", ">=1.2.0 <1.4.3"),
            ("=1.0||=2.0.0-rc.1", "=1.0 || =2.0.0-rc.1"),
            ("<5.6.1-2", "<5.6.1-2"),
            ("=1:2.3~rc1+b2", "=1:2.3~rc1+b2"),
        ],
        &[
            "", " ", "1.0", "^1.0", "~>1", ">", "||", "=1||", "= 1.0", "=latest", "* || =1",
            "=1,=2",
        ],
    );
}

#[test]
fn a_pattern_of_images_names_repositories_segment_by_segment() {
    all::<ImagePattern>(
        &[
            ("ghcr.io/acme/**", "ghcr.io/acme/**"),
            ("GHCR.io/acme/*", "ghcr.io/acme/*"),
            ("index.docker.io/library/debian", "docker.io/library/debian"),
            ("localhost/x", "localhost/x"),
            ("r.example:5000/a/*/c", "r.example:5000/a/*/c"),
        ],
        &[
            "",
            "debian",
            "acme/agent",
            "ghcr.io",
            "ghcr.io/",
            "ghcr.io/acme/**/x",
            "ghcr.io/ac*",
            "*/x",
            "*.io/x",
            "ghcr.io/acme:v1",
            "ghcr.io/a@sha256:00",
            "ghcr.io/Acme",
        ],
    );
    let named = |pattern: &str, image: &str| {
        let image = ImageRef::parse(image).unwrap();
        pattern.parse::<ImagePattern>().unwrap().matches(&image)
    };
    for (pattern, image) in [
        ("docker.io/library/debian", "debian:12"),
        ("docker.io/library/*", "debian"),
        ("docker.io/**", "acme/agent"),
        ("ghcr.io/acme/**", "ghcr.io/acme/a/b:latest"),
        ("ghcr.io/*/agent", "ghcr.io/acme/agent"),
    ] {
        assert!(named(pattern, image), "{pattern} {image}");
    }
    for (pattern, image) in [
        ("docker.io/library/debian", "ghcr.io/library/debian"),
        ("docker.io/library/*", "acme/agent"),
        ("ghcr.io/acme/**", "ghcr.io/acme"),
        ("ghcr.io/acme/**", "ghcr.io/acme-evil/x"),
        ("ghcr.io/acme/*", "ghcr.io/acme/a/b"),
        ("ghcr.io/acme/a", "ghcr.io/acme/a/b"),
        ("ghcr.io/acme/a/b", "ghcr.io/acme/a"),
        ("ghcr.io/acme/**", "ghcr.io:444/acme/x"),
    ] {
        assert!(!named(pattern, image), "{pattern} {image}");
    }
}

#[test]
fn a_pattern_lies_within_another_when_it_names_no_more() {
    let patterns = [
        "r.io/a",
        "r.io/*",
        "r.io/**",
        "r.io/a/*",
        "r.io/a/**",
        "r.io/*/b",
        "r.io/a/b",
        "s.io/a",
    ];
    let images = [
        "r.io/a",
        "r.io/b",
        "r.io/a/b",
        "r.io/b/b",
        "r.io/a/c",
        "r.io/a/b/c",
        "r.io/b/c",
        "s.io/a",
        "r.io/b/b/b",
    ];
    let images = images.map(|image| ImageRef::parse(image).unwrap());
    let patterns = patterns.map(|pattern| pattern.parse::<ImagePattern>().unwrap());
    for inner in &patterns {
        for outer in &patterns {
            let named = |p: &ImagePattern| {
                images
                    .iter()
                    .filter(|i| p.matches(i))
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let subset = named(inner)
                .iter()
                .all(|image| named(outer).contains(image));
            assert_eq!(inner.is_within(outer), subset, "{inner} within {outer}");
        }
    }
}

#[test]
fn a_pattern_of_sources_is_about_what_it_names() {
    let about = |pattern: &str, source: &str| {
        pattern
            .parse::<SourcePattern>()
            .unwrap()
            .matches(&source.parse().unwrap())
    };
    for (pattern, source) in [
        ("env", "env://X"),
        ("op", "op://Engineering/npm/token"),
        ("op://Engineering", "op://Engineering/npm/token"),
        ("vault://v.example", "vault://v.example/secret/x#y"),
        ("vault://v.example", "vault://V.example:8200/secret/x#y"),
        (
            "vault://v.example:8300",
            "vault://v.example:8300/secret/x#y",
        ),
        (
            "github-device://github.com",
            "github-device://github.com/abc",
        ),
        ("stdin", "stdin"),
    ] {
        assert!(about(pattern, source), "{pattern} {source}");
    }
    for (pattern, source) in [
        ("env", "file:///x"),
        ("op://Engineering", "op://Private/npm/token"),
        ("vault://v.example", "vault://w.example/secret/x#y"),
        ("vault://v.example", "vault://v.example:8300/secret/x#y"),
        (
            "github-device://github.com",
            "github-device://evil.example/abc",
        ),
    ] {
        assert!(!about(pattern, source), "{pattern} {source}");
    }
    let within = |a: &str, b: &str| {
        a.parse::<SourcePattern>()
            .unwrap()
            .is_within(&b.parse().unwrap())
    };
    assert!(within("op://A", "op") && within("op", "op") && within("op://A", "op://A"));
    assert!(!within("op", "op://A") && !within("op://A", "op://B") && !within("env", "op"));
}

#[test]
fn texts_are_bounded() {
    let name = |n: usize| "a".repeat(n).parse::<PackageName>();
    assert!(name(MAX_TEXT_BYTES).is_ok() && name(MAX_TEXT_BYTES + 1).is_err());
    let pattern = |n: usize| format!("r.io/{}", "a".repeat(n - 5)).parse::<ImagePattern>();
    assert!(pattern(MAX_TEXT_BYTES).is_ok() && pattern(MAX_TEXT_BYTES + 1).is_err());
    let range = |n: usize| vec!["=1"; n].join(" || ").parse::<VersionRange>();
    assert!(range(MAX_CONSTRAINTS).is_ok() && range(MAX_CONSTRAINTS + 1).is_err());
    let range = |n: usize| format!("={}", "1".repeat(n - 1)).parse::<VersionRange>();
    assert!(range(MAX_TEXT_BYTES).is_ok() && range(MAX_TEXT_BYTES + 1).is_err());
}
