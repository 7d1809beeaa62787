#![allow(clippy::unwrap_used)]
use super::*;
use crate::effective::EffectivePolicy;
use crate::layers::Layers;
use crate::merge::effective;
use crate::{difference, text};

const GRANT: &str = "[secrets.NPM_TOKEN]\nsource = \"env://NPM_TOKEN\"\n";

fn merged(secrets: &str, host: &str) -> Result<EffectivePolicy, Vec<String>> {
    let text =
        format!("{{ \"image\": \"debian\", \"agent\": {{\n\"secrets\": {{ {secrets} }} }} }}");
    let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
    let host = schema::hostconfig::parse(host.as_bytes(), "config.toml").unwrap();
    effective(&config, &host).map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn a_secret_is_there_where_the_host_grants_it_and_what_grants_it_is_named_where_not() {
    let policy = merged(
        r#""NPM_TOKEN": { "source": "op://E/npm/token", "ttl": "2m" }"#,
        GRANT,
    )
    .unwrap();
    let [secret] = policy.secrets.all.as_slice() else {
        panic!("{:?}", policy.secrets);
    };
    assert_eq!(
        format!("{} at {}", text::secret(secret), secret.origin),
        "secrets \"NPM_TOKEN\" as a file, for 120 s at agentcontainer.json:2:14"
    );
    assert!(policy.not_carried(&Layers::ALL).is_empty());
    // Values come from elsewhere than the document that the enforcer keeps.
    let again = EffectivePolicy::from_json(&policy.to_json()).unwrap();
    assert_eq!(again, policy);
    assert!(!String::from_utf8(policy.to_json()).unwrap().contains("://"));
    let none = merged("", GRANT).unwrap();
    let changes = difference::difference(&none, &policy);
    assert_eq!(changes.len(), 1, "{changes:?}");

    let found = merged(r#""NPM_TOKEN": "op://E/npm/token""#, "").unwrap_err();
    assert_eq!(found.len(), 1);
    for words in [
        "agentcontainer.json:2:14",
        "[secret-not-granted]",
        "op://E/npm/token",
        "`agentcontainer grant NPM_TOKEN --secret --source URI`",
    ] {
        assert!(found[0].contains(words), "{found:?}");
    }
    // What grants a credential of that name grants no file.
    let credential =
        "[credentials.NPM_TOKEN]\nsource = \"env://NPM_TOKEN\"\nhosts = [\"a.test\"]\n";
    assert!(merged(r#""NPM_TOKEN": {}"#, credential).is_err());
}

#[test]
fn programs_of_a_secret_are_carried_by_bpf_lsm_alone_unless_the_host_lets_that_be() {
    let asked = r#""NPM_TOKEN": { "programs": ["/usr/bin/npm"] }"#;
    let strict = merged(asked, GRANT).unwrap();
    let without = Layers {
        lsm: Err("no BPF LSM"),
        ..Layers::ALL
    };
    assert!(strict.wants_lsm() && strict.not_carried(&Layers::ALL).is_empty());
    let found = strict.not_carried(&without);
    assert_eq!(found.len(), 1);
    let said = found[0].to_string();
    assert!(
        said.contains("agentcontainer.json:2:14")
            && said.contains("[not-carried]")
            && said.contains("agent.secrets.NPM_TOKEN.programs")
            && said.contains("no BPF LSM")
            && said.contains("files = \"mounts\""),
        "{said}"
    );
    let lax = merged(asked, &format!("files = \"mounts\"\n{GRANT}")).unwrap();
    assert!(lax.not_carried(&without).is_empty());
    assert_eq!(
        lax.secrets.mounts_suffice.unwrap().to_string(),
        "config.toml:1:9"
    );
}

#[test]
fn a_document_with_a_secret_that_no_file_can_be_is_refused() {
    let policy = merged(r#""NPM_TOKEN": {}"#, GRANT).unwrap();
    let with = |change: &dyn Fn(&mut Secrets)| {
        let mut secrets = policy.secrets.clone();
        change(&mut secrets);
        policy.clone().with_secrets(secrets).map(drop)
    };
    let named = |name: &'static str| move |secrets: &mut Secrets| secrets.all[0].name = name.into();
    assert!(with(&named("a-b_C")).is_ok());
    for name in ["", ".", "..", "a/b", "/a", "a\0"] {
        assert!(with(&named(name)).is_err(), "{name:?}");
    }
    assert!(with(&|s| s.all.push(s.all[0].clone())).is_err());
    assert!(with(&|s| s.all[0].ttl = Some(MAX_TTL_SECONDS)).is_ok());
    assert!(with(&|s| s.all[0].ttl = Some(MAX_TTL_SECONDS + 1)).is_err());
    assert!(with(&|s| s.all[0].ttl = Some(0)).is_err());
    let many = |n: usize| {
        let one = policy.secrets.all[0].clone();
        with(&move |s: &mut Secrets| {
            s.all = (0..n)
                .map(|i| Secret {
                    name: format!("s{i}"),
                    ..one.clone()
                })
                .collect();
        })
    };
    assert!(many(MAX_SECRETS).is_ok());
    assert!(many(MAX_SECRETS + 1).is_err());
    let programs = |n: usize| {
        with(&move |s: &mut Secrets| s.all[0].programs = vec!["/bin/x".parse().unwrap(); n])
    };
    assert!(programs(MAX_IN_RULE).is_ok());
    assert!(programs(MAX_IN_RULE + 1).is_err());
}
