#![allow(clippy::unwrap_used)]
use super::*;
use hyper::Request;
use schema::host::HostName;

const VALUE: &str = "ghp_RealRealRealRealRealRealRealRealReal";
const STAND_IN: &str = "ghp_FakeFakeFakeFakeFakeFakeFakeFakeFake";

fn credentials(env: Option<&str>) -> Credentials {
    credentials_for(env, &[])
}

fn credentials_for(env: Option<&str>, paths: &[&str]) -> Credentials {
    let origin = policy::Origin {
        file: "agentcontainer.json".into(),
        line: 1,
        column: 1,
    };
    let rule = Credential {
        name: "github".into(),
        places: vec![policy::credential::Place {
            host: "api.github.com".parse().unwrap(),
            port: 443,
            paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
            methods: Vec::new(),
        }],
        header: "authorization".into(),
        prefix: "Bearer ".into(),
        suffix: String::new(),
        query: None,
        env: env.map(str::to_owned),
        origin,
    };
    let secret = api::v1::Secret {
        credential: "github".into(),
        value: VALUE.into(),
        placeholder: if env.is_some() { STAND_IN } else { "" }.into(),
        ..Default::default()
    };
    Credentials::new(&[rule], &[secret.into()])
}

fn intent(name: &str) -> Intent {
    Intent {
        place: Place::Name(HostName::parse(name).unwrap()),
        port: 443,
    }
}

fn apply(
    credentials: &Credentials,
    name: &str,
    scheme: Scheme,
    target: &str,
    fields: &[(&str, &str)],
) -> Result<(Option<String>, HeaderMap), Refusal> {
    let mut request = Request::builder().uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    let applied = credentials.apply(&mut parts, &intent(name), scheme)?;
    Ok((applied.names.first().cloned(), parts.headers))
}

#[test]
fn it_goes_to_its_paths_alone_and_to_none_that_is_spelt_in_another_way() {
    let fields = [("authorization", format!("Bearer {STAND_IN}"))];
    let fields = fields
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    for (target, goes) in [
        ("/repos/acme/widget", true),
        ("/repos/acme/widget/pulls?state=open", true),
        ("/repos/acme/other", false),
        ("/repos/acme/widget/../other", false),
        ("/repos/acme/widget/%2e%2e/other", false),
        ("/repos/acme/widget/..;/other", false),
        ("//repos/acme/widget", false),
        ("/graphql", false),
        ("/", false),
    ] {
        let paths = ["/repos/acme/widget/**"];
        let named = credentials_for(Some("GITHUB_TOKEN"), &paths);
        let sent = apply(&named, "api.github.com", Scheme::Https, target, &fields);
        match sent {
            Ok((_, headers)) => {
                assert!(goes, "{target}");
                assert_eq!(headers["authorization"], format!("Bearer {VALUE}"));
            }
            Err(refusal) => {
                assert!(
                    !goes && refusal.code() == "credential-elsewhere",
                    "{target}"
                );
                assert!(refusal.to_string().contains("(/repos/acme/widget/**)"));
            }
        }
        // One that is written into every request is not written into another.
        let (_, headers) = apply(
            &credentials_for(None, &paths),
            "api.github.com",
            Scheme::Https,
            target,
            &[],
        )
        .unwrap();
        assert_eq!(headers.contains_key("authorization"), goes, "{target}");
    }
}

#[test]
fn two_that_nothing_stands_for_are_each_written_to_their_own_paths() {
    let rules = [("github", "/acme/**"), ("second", "/other/**")].map(|(name, path)| {
        let one = credentials_for(None, &[path]).held.remove(0).rule;
        Credential {
            name: name.into(),
            ..one
        }
    });
    let secrets = [("github", VALUE), ("second", "another")].map(|(name, value)| {
        Secret::from(api::v1::Secret {
            credential: name.into(),
            value: value.into(),
            ..Default::default()
        })
    });
    let credentials = Credentials::new(&rules, &secrets);
    for (target, written) in [
        ("/acme/a", Some(VALUE)),
        ("/other/a", Some("another")),
        ("/third", None),
    ] {
        let sent = apply(&credentials, "api.github.com", Scheme::Https, target, &[]);
        let (_, headers) = sent.unwrap();
        let field = headers
            .get("authorization")
            .map(|field| field.to_str().unwrap());
        assert_eq!(
            field.map(str::to_owned),
            written.map(|value| format!("Bearer {value}"))
        );
    }
}

#[test]
fn it_is_exchanged_in_its_field_in_every_spelling() {
    let credentials = credentials(Some("GITHUB_TOKEN"));
    let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("x:{token}")));
    for (sent, wanted) in [
        (format!("Bearer {STAND_IN}"), format!("Bearer {VALUE}")),
        (format!("token {STAND_IN}"), format!("token {VALUE}")),
        (STAND_IN.to_owned(), VALUE.to_owned()),
        (basic(STAND_IN), basic(VALUE)),
    ] {
        let fields = [("authorization", sent.as_str())];
        let (name, headers) =
            apply(&credentials, "api.github.com", Scheme::Https, "/", &fields).unwrap();
        assert_eq!(name.as_deref(), Some("github"));
        assert_eq!(headers["authorization"], wanted);
        assert!(headers["authorization"].is_sensitive());
    }
    let (name, _) = apply(&credentials, "api.github.com", Scheme::Https, "/", &[]).unwrap();
    assert_eq!(name, None);
}

#[test]
fn it_is_refused_anywhere_else() {
    let credentials = credentials(Some("GITHUB_TOKEN"));
    let bearer = format!("Bearer {STAND_IN}");
    let basic = format!("Basic {}", STANDARD.encode(format!("ab:{STAND_IN}")));
    let escaped: String = STAND_IN.bytes().map(|b| format!("%{b:02X}")).collect();
    let (https, http) = (Scheme::Https, Scheme::Http);
    let fine = "api.github.com";
    for (host, scheme, target, field, code) in [
        (
            "evil.example",
            https,
            "/",
            ("authorization", bearer.as_str()),
            "credential-elsewhere",
        ),
        (
            "evil.example",
            https,
            "/",
            ("authorization", basic.as_str()),
            "credential-elsewhere",
        ),
        (
            fine,
            http,
            "/",
            ("authorization", bearer.as_str()),
            "credential-elsewhere",
        ),
        (
            fine,
            https,
            "/",
            ("x-token", STAND_IN),
            "credential-misplaced",
        ),
        (
            fine,
            https,
            "/",
            ("cookie", escaped.as_str()),
            "credential-misplaced",
        ),
        (
            fine,
            https,
            &format!("/?t={STAND_IN}"),
            ("x", "y"),
            "credential-misplaced",
        ),
        (
            fine,
            https,
            &format!("/{escaped}"),
            ("x", "y"),
            "credential-misplaced",
        ),
        (
            "evil.example",
            https,
            &format!("/{}", STANDARD.encode(STAND_IN)),
            ("x", "y"),
            "credential-elsewhere",
        ),
        (
            fine,
            https,
            "/",
            (
                "authorization",
                &format!("Digest {}", STANDARD.encode(STAND_IN)),
            ),
            "credential-misplaced",
        ),
    ] {
        let refusal = apply(&credentials, host, scheme, target, &[field]).unwrap_err();
        assert_eq!(refusal.code(), code, "{host} {target} {field:?}");
        assert!(!refusal.to_string().contains(VALUE) && !refusal.to_string().contains(STAND_IN));
    }
}

#[test]
fn one_that_nothing_stands_for_is_written_where_it_belongs_and_nowhere_else() {
    let credentials = credentials(None);
    let own = [("authorization", "Bearer mine")];
    let (name, headers) = apply(&credentials, "api.github.com", Scheme::Https, "/", &own).unwrap();
    assert_eq!(name.as_deref(), Some("github"));
    assert_eq!(headers["authorization"], format!("Bearer {VALUE}"));
    for (host, scheme) in [
        ("evil.example", Scheme::Https),
        ("api.github.com", Scheme::Http),
    ] {
        let (name, headers) = apply(&credentials, host, scheme, "/", &own).unwrap();
        assert_eq!(
            (name, headers["authorization"].as_bytes()),
            (None, &b"Bearer mine"[..])
        );
    }
}

#[test]
fn a_value_that_was_lost_is_not_done_without() {
    let rules: Vec<Credential> = credentials(None)
        .held
        .iter()
        .map(|held| held.rule.clone())
        .collect();
    let lost = Credentials::new(&rules, &[]);
    let refusal = apply(&lost, "api.github.com", Scheme::Https, "/", &[]).unwrap_err();
    assert_eq!(refusal.code(), "credential-unavailable");
}

/// What the target becomes that a request is sent with.
fn target(query: Option<&str>, host: &str, target: &str) -> Result<String, Refusal> {
    let mut rule = credentials(Some("TOKEN")).held.remove(0).rule;
    rule.query = query.map(str::to_owned);
    let secret = api::v1::Secret {
        credential: "github".into(),
        value: "a/b+c d&RealReal".into(),
        placeholder: STAND_IN.into(),
        ..Default::default()
    };
    let credentials = Credentials::new(&[rule], &[secret.into()]);
    let request = Request::builder().uri(target);
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    credentials.apply(&mut parts, &intent(host), Scheme::Https)?;
    Ok(parts.uri.to_string())
}

#[test]
fn in_a_query_it_is_the_whole_value_of_its_parameter_and_nothing_else() {
    let escaped: String = STAND_IN.bytes().map(|b| format!("%{b:02x}")).collect();
    let (fine, real) = ("api.github.com", "a%2Fb%2Bc%20d%26RealReal");
    for sent in [STAND_IN, &escaped] {
        let sent = target(Some("key"), fine, &format!("/a?x=1&key={sent}&y=&z"));
        assert_eq!(sent.unwrap(), format!("/a?x=1&key={real}&y=&z"));
    }
    assert_eq!(target(Some("key"), fine, "/a?key=x").unwrap(), "/a?key=x");
    let encoded = STANDARD.encode(STAND_IN);
    for (query, host, text, code) in [
        (
            None,
            fine,
            format!("/?key={STAND_IN}"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            fine,
            format!("/?Key={STAND_IN}"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            fine,
            format!("/?xkey={STAND_IN}"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            fine,
            format!("/?key=x{STAND_IN}"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            fine,
            format!("/?key={STAND_IN};a"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            fine,
            format!("/?key={encoded}"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            fine,
            format!("/?{STAND_IN}"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            fine,
            format!("/{STAND_IN}?key={STAND_IN}"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            fine,
            format!("/?key={STAND_IN}&x={STAND_IN}"),
            "credential-misplaced",
        ),
        (
            Some("key"),
            "evil.example",
            format!("/?key={STAND_IN}"),
            "credential-elsewhere",
        ),
    ] {
        let refusal = target(query, host, &text).unwrap_err();
        assert_eq!(refusal.code(), code, "{text}");
    }
}

#[test]
fn a_short_value_is_looked_for_in_what_its_own_places_answer_alone() {
    const SHORT: &str = "hunter2hunter2";
    let github = credentials(Some("GITHUB_TOKEN")).held.remove(0).rule;
    let mut door = github.clone();
    (door.name, door.env) = ("door".into(), None);
    door.places[0].host = "door.example".parse().unwrap();
    let secret = |name: &str, value: &str, placeholder: &str| {
        Secret::from(api::v1::Secret {
            credential: name.into(),
            value: value.into(),
            placeholder: placeholder.into(),
            ..Default::default()
        })
    };
    let secrets = [secret("github", VALUE, STAND_IN), secret("door", SHORT, "")];
    let credentials = Credentials::new(&[github, door], &secrets);
    for (host, is_own, has_short) in [
        ("api.github.com", true, false),
        ("door.example", true, true),
        ("evil.example", false, false),
    ] {
        let (mut parts, ()) = Request::new(()).into_parts();
        let applied = credentials.apply(&mut parts, &intent(host), Scheme::Https);
        let applied = applied.unwrap();
        let answers = applied.answers.unwrap();
        assert_eq!(applied.is_own, is_own, "{host}");
        assert!(answers.is_in(VALUE.as_bytes()), "{host}");
        assert_eq!(answers.is_in(SHORT.as_bytes()), has_short, "{host}");
    }
}

#[test]
fn basic_is_encoded_where_the_gateway_writes_it() {
    for (prefix, suffix, wanted) in [
        (
            "Basic me:",
            "",
            format!("Basic {}", STANDARD.encode(format!("me:{VALUE}"))),
        ),
        (
            "basic ",
            ":x",
            format!("Basic {}", STANDARD.encode(format!("{VALUE}:x"))),
        ),
        // In Base64 already.
        ("Basic ", "", format!("Basic {VALUE}")),
        ("Digest a:", "", format!("Digest a:{VALUE}")),
    ] {
        let mut rule = credentials(None).held.remove(0).rule;
        (rule.prefix, rule.suffix) = (prefix.into(), suffix.into());
        let secret = api::v1::Secret {
            credential: "github".into(),
            value: VALUE.into(),
            ..Default::default()
        };
        let credentials = Credentials::new(&[rule], &[secret.into()]);
        let written = apply(&credentials, "api.github.com", Scheme::Https, "/", &[]);
        assert_eq!(written.unwrap().1["authorization"], wanted);
    }
}
