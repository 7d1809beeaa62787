//! Sources that are services, against one that follows their documented API over TLS: what they are asked, and what every answer
//! that is not the expected one comes to.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

const VALUE: &str = "ghp_RealRealRealRealReal";

/// One request as it was heard: method, target, fields, body.
#[derive(Clone, Debug)]
struct Heard {
    line: String,
    headers: HashMap<String, String>,
    body: String,
}

/// A service over TLS on loopback.
struct Stand {
    port: u16,
    root: Vec<u8>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Stand {
    /// Answers with status and body.
    async fn new(answer: impl Fn(&Heard) -> (u16, String) + Send + Sync + 'static) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let root = certificate.der().to_vec();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let (into, answer) = (Arc::clone(&heard), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, into) = (acceptor.clone(), Arc::clone(&into));
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (into, answer) = (Arc::clone(&into), Arc::clone(&answer));
                        async move {
                            let line = format!("{} {}", request.method(), request.uri());
                            let field = |(name, value): (
                                &hyper::header::HeaderName,
                                &hyper::header::HeaderValue,
                            )| {
                                (name.to_string(), value.to_str().unwrap().to_owned())
                            };
                            let headers = request.headers().iter().map(field).collect();
                            let body = request.into_body().collect().await.unwrap().to_bytes();
                            let one = Heard {
                                line,
                                headers,
                                body: String::from_utf8(body.to_vec()).unwrap(),
                            };
                            let (status, body) = answer(&one);
                            into.lock().unwrap().push(one);
                            let response = Response::builder().status(status);
                            Ok::<_, Infallible>(
                                response.body(Full::new(Bytes::from(body))).unwrap(),
                            )
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, root, heard }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    async fn get(
        &self,
        source: &str,
        variables: &[(&str, &str)],
        before: Option<&Fetched>,
    ) -> Result<Fetched, String> {
        let shown = Arc::new(Mutex::new(Vec::new()));
        self.get_shown(source, variables, before, &shown).await
    }

    async fn get_shown(
        &self,
        source: &str,
        variables: &[(&str, &str)],
        before: Option<&Fetched>,
        shown: &Arc<Mutex<Vec<String>>>,
    ) -> Result<Fetched, String> {
        let source = source.replace("PORT", &self.port.to_string());
        let env = |name: &str| -> Option<OsString> {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).into())
        };
        let person = |line: &str| shown.lock().unwrap().push(line.to_owned());
        let roots = [self.root.clone()];
        let host = Host {
            env: &env,
            roots: &roots,
            person: Some(&person),
            input: Input::Taken("the test's"),
            deadline: Duration::from_secs(5),
            second: Duration::from_millis(10),
        };
        let got = fetch(&source.parse().unwrap(), before, &host).await;
        got.map_err(|error| {
            let said = format!("{error} {error:?}");
            assert!(!said.contains("Real") && !said.contains("t0ken"), "{said}");
            error.to_string()
        })
    }
}

fn text(fetched: &Fetched) -> &str {
    std::str::from_utf8(fetched.value.expose()).unwrap()
}

/// Vault with one secret in a store of that version.
async fn vault(version: &'static str, lease: &'static str) -> Stand {
    Stand::new(move |heard| {
        let path = heard.line.split(' ').nth(1).unwrap();
        let token = heard.headers.get("x-vault-token").map(String::as_str);
        let denied = || (403, r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#.to_owned());
        match path {
            "/v1/auth/approle/login" if heard.body.contains("\"s3cret-id\"") && heard.body.contains("\"the-role\"") => {
                (200, r#"{"auth":{"client_token":"t0ken"}}"#.to_owned())
            }
            "/v1/auth/ci/login" if heard.body.contains("\"a.b.c\"") && heard.body.contains("\"ci-role\"") => {
                (200, r#"{"auth":{"client_token":"t0ken"}}"#.to_owned())
            }
            path if path.ends_with("/login") => (400, r#"{"errors":["invalid role or secret ID"]}"#.to_owned()),
            _ if token != Some("t0ken") => denied(),
            path if path.starts_with("/v1/sys/internal/ui/mounts/secret/") => (
                200,
                format!(r#"{{"data":{{"path":"secret/","type":"kv","options":{{"version":"{version}"}}}}}}"#),
            ),
            "/v1/secret/data/team%20a/github" if version == "2" => (
                200,
                format!(r#"{{"data":{{"data":{{"token":"{VALUE}","n":7}},"metadata":{{"version":3}}}}}}"#),
            ),
            "/v1/secret/team%20a/github" if version == "1" => (
                200,
                format!(r#"{{"data":{{"token":"{VALUE}","n":7}},{lease}}}"#),
            ),
            "/v1/secret/data/deleted/x" => (404, r#"{"data":{"data":null}}"#.to_owned()),
            _ => (404, r#"{"errors":[]}"#.to_owned()),
        }
    })
    .await
}

const NAMED: &str = "vault://localhost:PORT/secret/team a/github#token";
const TOKEN: [(&str, &str); 1] = [("VAULT_TOKEN", "t0ken")];

#[tokio::test]
async fn vault_is_read_with_versions_and_without_in_a_namespace() {
    for version in ["1", "2"] {
        let stand = vault(version, r#""lease_id":"","lease_duration":2764800"#).await;
        let variables = [("VAULT_TOKEN", "t0ken"), ("VAULT_NAMESPACE", "team/a")];
        let got = stand.get(NAMED, &variables, None).await.unwrap();
        assert_eq!((text(&got), got.expires), (VALUE, None));
        for one in stand.heard() {
            assert_eq!(one.headers["x-vault-namespace"], "team/a");
            assert_eq!(one.headers["x-vault-request"], "true");
        }
    }
    let stand = vault("1", r#""lease_id":"secret/x/1","lease_duration":600"#).await;
    let got = stand.get(NAMED, &TOKEN, None).await.unwrap();
    let left = got.expires.unwrap() - now();
    assert!((590..=600).contains(&left), "{left}");
}

#[tokio::test]
async fn vault_is_asked_by_role_by_jwt_and_by_what_a_login_left() {
    let stand = vault("2", "").await;
    let dir = tempfile::tempdir().unwrap();
    let jwt = dir.path().join("jwt");
    std::fs::write(&jwt, "a.b.c\n").unwrap();
    std::fs::write(dir.path().join(".vault-token"), "t0ken\n").unwrap();
    let home = dir.path().to_str().unwrap();
    let file = jwt.to_str().unwrap();
    for variables in [
        &[
            ("VAULT_ROLE_ID", "the-role"),
            ("VAULT_SECRET_ID", "s3cret-id"),
            ("HOME", "/"),
        ][..],
        &[
            ("VAULT_JWT", "a.b.c"),
            ("VAULT_ROLE", "ci-role"),
            ("VAULT_AUTH_MOUNT", "ci"),
        ],
        &[
            ("VAULT_JWT_FILE", file),
            ("VAULT_ROLE", "ci-role"),
            ("VAULT_AUTH_MOUNT", "ci"),
        ],
        &[("HOME", home)],
        &[("HOME", home), ("VAULT_TOKEN", "")],
    ] {
        let got = stand.get(NAMED, variables, None).await;
        assert_eq!(got.as_ref().map(text), Ok(VALUE), "{variables:?}");
    }
}

#[tokio::test]
async fn what_vault_refuses_is_said_with_what_to_do() {
    let stand = vault("2", "").await;
    for (source, variables, words) in [
        (NAMED, &[("HOME", "/nowhere")][..], "set VAULT_TOKEN"),
        (
            NAMED,
            &[("VAULT_TOKEN", "other")],
            "the policy of VAULT_TOKEN has to allow",
        ),
        (
            NAMED,
            &[("VAULT_ROLE_ID", "x")],
            "invalid role or secret ID",
        ),
        (
            NAMED,
            &[("VAULT_TOKEN", "t0ken"), ("VAULT_CACERT", "/nowhere")],
            "VAULT_CACERT names /nowhere",
        ),
        (
            "vault://localhost:PORT/secret/team a/github#none",
            &TOKEN,
            "no field none; it has n, token",
        ),
        (
            "vault://localhost:PORT/secret/team a/github#n",
            &TOKEN,
            "the field n is no string",
        ),
        (
            "vault://localhost:PORT/secret/deleted/x#token",
            &TOKEN,
            "was deleted",
        ),
        (
            "vault://localhost:1/secret/team a/github#token",
            &TOKEN,
            "cannot be reached",
        ),
        (
            "vault://127.0.0.1:PORT/secret/team a/github#token",
            &TOKEN,
            "TLS",
        ),
    ] {
        let error = stand.get(source, variables, None).await.unwrap_err();
        assert!(error.contains(words), "{source} {variables:?}: {error}");
        assert!(!error.contains('\n'), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_is_bounded_and_no_redirect_is_followed() {
    for (length, fits) in [
        (crate::MAX_ANSWER_BYTES, true),
        (crate::MAX_ANSWER_BYTES + 1, false),
    ] {
        let stand = Stand::new(move |_| (200, " ".repeat(length))).await;
        let error = stand.get(NAMED, &TOKEN, None).await.unwrap_err();
        assert_eq!(error.contains("longer than"), !fits, "{error}");
    }
    let stand = Stand::new(|_| (307, String::new())).await;
    let error = stand.get(NAMED, &TOKEN, None).await.unwrap_err();
    assert!(error.contains("307"), "{error}");
    assert_eq!(stand.heard().len(), 1);
}

const DEVICE: &str = "github-device://localhost:PORT/Iv1.client?scope=repo,read:org";

/// A server of device flows: the answers to each question for the token, in turn; the last one stays.
async fn device(answers: &'static [&'static str]) -> Stand {
    let asked = Mutex::new(0);
    Stand::new(move |heard| {
        if heard.line == "POST /login/device/code" {
            let started = r#"{"device_code":"dev1ce","user_code":"WDJB-MJHT","verification_uri":"https://github.test/login/device","expires_in":900,"interval":5}"#;
            return (200, started.to_owned());
        }
        let mut asked = asked.lock().unwrap();
        let answer = answers[(*asked).min(answers.len() - 1)];
        *asked += 1;
        (200, answer.to_owned())
    })
    .await
}

const PENDING: &str = r#"{"error":"authorization_pending"}"#;
const GRANTED: &str = r#"{"access_token":"ghp_RealRealRealRealReal","token_type":"bearer","expires_in":28800,"refresh_token":"ghr_t0ken-that-renews-it","refresh_token_expires_in":15811200}"#;
const RENEWED: &str = r#"{"access_token":"ghp_NewRealNewRealNewRe","expires_in":28800,"refresh_token":"ghr_t0ken-that-comes-then"}"#;

#[tokio::test]
async fn a_person_grants_a_token_in_a_browser_and_it_renews_itself() {
    let stand = device(&[
        PENDING,
        r#"{"error":"slow_down","interval":10}"#,
        PENDING,
        GRANTED,
        RENEWED,
    ])
    .await;
    let shown = Arc::new(Mutex::new(Vec::new()));
    let began = std::time::Instant::now();
    let got = stand.get_shown(DEVICE, &[], None, &shown).await.unwrap();
    // 5, 5, 10 and 10 units: told to ask less often, it does.
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(text(&got), VALUE);
    assert!(got.expires.unwrap() > now() + 28_000);
    assert_eq!(
        *shown.lock().unwrap(),
        ["open https://github.test/login/device and enter WDJB-MJHT"]
    );
    let heard = stand.heard();
    assert_eq!(
        heard[0].body,
        "client_id=Iv1.client&scope=repo%20read%3Aorg"
    );
    assert!(
        heard[1]
            .body
            .contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code")
    );
    assert!(heard[1].body.contains("device_code=dev1ce"));
    assert!(!format!("{got:?}").contains("Real"));

    let renewed = stand
        .get_shown(DEVICE, &[], Some(&got), &shown)
        .await
        .unwrap();
    assert_eq!(text(&renewed), "ghp_NewRealNewRealNewRe");
    let last = stand.heard().pop().unwrap();
    assert!(
        last.body
            .contains("grant_type=refresh_token&refresh_token=ghr_t0ken-that-renews-it")
    );
    assert_eq!(shown.lock().unwrap().len(), 1, "nobody was asked again");
}

#[tokio::test]
async fn what_a_device_flow_comes_to_otherwise_is_said() {
    for (answers, words) in [
        (
            &[PENDING, r#"{"error":"access_denied"}"#][..],
            "the person refused",
        ),
        (
            &[r#"{"error":"expired_token"}"#],
            "was not granted within 15 min",
        ),
        (
            &[r#"{"error":"incorrect_client_credentials"}"#],
            "no application of this client id",
        ),
        (
            &[r#"{"error":"something\u001b[2Jelse"}"#],
            "something\\u{1b}[2Jelse",
        ),
        (&["{}"], "not what RFC 8628 has"),
        (&["<html>"], "not what RFC 8628 has"),
    ] {
        let error = device(answers)
            .await
            .get(DEVICE, &[], None)
            .await
            .unwrap_err();
        assert!(error.contains(words), "{answers:?}: {error}");
    }
    let plain = Stand::new(|_| {
        let started =
            r#"{"device_code":"d","user_code":"u","verification_uri":"http://x","expires_in":9}"#;
        (200, started.to_owned())
    });
    let error = plain.await.get(DEVICE, &[], None).await.unwrap_err();
    assert!(
        error.contains("no https") || error.contains("not https"),
        "{error}"
    );
    // One that nobody grants ends when the server said.
    let short = Stand::new(|heard| {
        let started = r#"{"device_code":"d","user_code":"u","verification_uri":"https://x","expires_in":20,"interval":5}"#;
        (
            200,
            if heard.line.ends_with("code") {
                started
            } else {
                PENDING
            }
            .to_owned(),
        )
    });
    let error = short.await.get(DEVICE, &[], None).await.unwrap_err();
    assert!(error.contains("was not granted"), "{error}");
}
