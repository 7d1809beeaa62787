//! The variables by which programs are told of the session's trust: those that have no way to it by the usual files, or read
//! others. What a person set stays, and is said; what the image set stays where it leads to the same certificates.

use std::collections::BTreeMap;

use super::{CA, KEYSTORE, PASSWORD, TARGET};

/// Name a file with everything that is trusted.
const WHOLE: &[&str] = &[
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
];
/// Name a file that is trusted besides what the program brings along.
const ADDED: &[&str] = &["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
const JAVA: &str = "JAVA_TOOL_OPTIONS";

type Environment = BTreeMap<String, Option<String>>;

/// The files that the image's own variables name.
pub fn named_by(image: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    WHOLE
        .iter()
        .chain(ADDED)
        .filter_map(|name| image.get(*name).map(String::as_str))
}

/// Adds them to `env`, which is what the person set. `holds` says whether a path inside is a file with the session's
/// certificate. Returns what is different from what one would expect.
pub fn add(
    env: &mut Environment,
    image: &BTreeMap<String, String>,
    holds: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    let whole = format!("{TARGET}/{}", super::BUNDLE);
    let ca = format!("{TARGET}/{CA}");
    let files = WHOLE.iter().map(|name| (*name, &whole));
    for (name, file) in files.chain(ADDED.iter().map(|name| (*name, &ca))) {
        match env.get(name) {
            Some(Some(set)) if !holds(set) => notes.push(format!(
                "{name} is yours: what reads it trusts the session's certificate only if {set} has it, as {ca} does"
            )),
            Some(_) => {}
            None if image.get(name).is_some_and(|set| holds(set)) => {}
            None => {
                env.insert(name.to_owned(), Some(file.clone()));
            }
        }
    }
    notes.extend(java(env, image));
    notes
}

/// The JVM's one variable holds all of its options: ours come behind what is there.
fn java(env: &mut Environment, image: &BTreeMap<String, String>) -> Option<String> {
    let before = match env.get(JAVA) {
        Some(Some(set)) => set.as_str(),
        Some(None) => return None,
        None => image.get(JAVA).map_or("", String::as_str),
    };
    if before.contains("-Djavax.net.ssl.trustStore=") {
        return Some(format!(
            "{JAVA} names a trust store: JVMs trust the session's certificate only if it is there, as in {TARGET}/{KEYSTORE}"
        ));
    }
    let ours = format!(
        "-Djavax.net.ssl.trustStore={TARGET}/{KEYSTORE} -Djavax.net.ssl.trustStorePassword={PASSWORD} -Djavax.net.ssl.trustStoreType=PKCS12"
    );
    let value = match before.trim() {
        "" => ours,
        before => format!("{before} {ours}"),
    };
    env.insert(JAVA.to_owned(), Some(value));
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn image(set: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        set.iter().map(own).collect()
    }

    #[test]
    fn every_variable_leads_to_what_it_is_for() {
        let mut env = Environment::new();
        assert!(add(&mut env, &image(&[]), |_| false).is_empty());
        assert_eq!(env.len(), WHOLE.len() + ADDED.len() + 1);
        for name in WHOLE {
            assert_eq!(
                env[*name].as_deref(),
                Some("/run/agentcontainer/trust/bundle.pem")
            );
        }
        for name in ADDED {
            assert_eq!(
                env[*name].as_deref(),
                Some("/run/agentcontainer/trust/ca.pem")
            );
        }
        assert_eq!(
            env[JAVA].as_deref(),
            Some(
                "-Djavax.net.ssl.trustStore=/run/agentcontainer/trust/cacerts.p12 -Djavax.net.ssl.trustStorePassword=changeit \
                 -Djavax.net.ssl.trustStoreType=PKCS12"
            )
        );
    }

    #[test]
    fn what_a_person_set_stays_and_is_said() {
        let mut env = Environment::from([
            ("SSL_CERT_FILE".into(), Some("/mine.pem".into())),
            ("CURL_CA_BUNDLE".into(), Some("/covered.pem".into())),
            ("PIP_CERT".into(), None),
            (JAVA.into(), Some("-Xmx1g".into())),
        ]);
        let notes = add(&mut env, &image(&[(JAVA, "-Xss1m")]), |path| {
            path == "/covered.pem"
        });
        assert_eq!(env["SSL_CERT_FILE"].as_deref(), Some("/mine.pem"));
        assert_eq!(env["CURL_CA_BUNDLE"].as_deref(), Some("/covered.pem"));
        assert_eq!(env["PIP_CERT"], None);
        assert!(
            env[JAVA]
                .as_deref()
                .unwrap()
                .starts_with("-Xmx1g -Djavax.net.ssl.trustStore=/run")
        );
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].starts_with("SSL_CERT_FILE is yours"));
    }

    #[test]
    fn what_the_image_set_stays_where_it_leads_to_the_same() {
        let set = image(&[
            ("SSL_CERT_FILE", "/covered.pem"),
            ("NODE_EXTRA_CA_CERTS", "/gone.pem"),
            (JAVA, "-Xss1m"),
        ]);
        let mut env = Environment::new();
        assert!(add(&mut env, &set, |path| path == "/covered.pem").is_empty());
        assert!(!env.contains_key("SSL_CERT_FILE"));
        assert_eq!(
            env["NODE_EXTRA_CA_CERTS"].as_deref(),
            Some("/run/agentcontainer/trust/ca.pem")
        );
        assert!(env[JAVA].as_deref().unwrap().starts_with("-Xss1m -Djavax"));
        assert_eq!(
            named_by(&set).collect::<Vec<_>>(),
            ["/covered.pem", "/gone.pem"]
        );
    }

    #[test]
    fn a_trust_store_that_is_named_already_stays_and_is_said() {
        let theirs = "-Djavax.net.ssl.trustStore=/x.jks";
        for (mut env, image) in [
            (
                Environment::from([(JAVA.into(), Some(theirs.into()))]),
                image(&[]),
            ),
            (Environment::new(), image(&[(JAVA, theirs)])),
        ] {
            let before = env.get(JAVA).cloned();
            let notes = add(&mut env, &image, |_| false);
            assert_eq!(env.get(JAVA).cloned(), before);
            assert!(notes[0].starts_with("JAVA_TOOL_OPTIONS names a trust store"));
        }
        let mut taken_away = Environment::from([(JAVA.into(), None)]);
        assert!(add(&mut taken_away, &image(&[]), |_| false).is_empty());
        assert_eq!(taken_away[JAVA], None);
    }
}
