#![allow(clippy::unwrap_used)]
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use super::*;
use crate::sign::oidc;

fn token(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn now() -> jiff::Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

const CLAIMS: &str = r#"{"iss":"https://issuer.test","sub":"1","email":"ada@example.com","aud":"sigstore","exp":4102444800}"#;

#[test]
fn a_token_is_read_bounded_in_force_and_for_who_it_is_sent_to() {
    let identity = Identity::from_token(&token(CLAIMS), now()).unwrap();
    assert_eq!(identity.subject(), "ada@example.com");
    assert_eq!(identity.issuer(), "https://issuer.test");
    let ended = CLAIMS.replace("4102444800", "1767225600");
    assert!(matches!(
        Identity::from_token(&token(&ended), now()),
        Err(KeylessError::Expired(_))
    ));
    for none in ["", "a.b", "a.b.c.d", "secret-that-is-no-token"] {
        let refused = Identity::from_token(none, now()).unwrap_err().to_string();
        assert!(!refused.contains("secret-that"), "{refused}");
    }
    let long = |length: usize| {
        let fill = length - token(&CLAIMS.replace("\"1\"", "\"\"")).len();
        let mut text = token(&CLAIMS.replace("\"1\"", "\"\""));
        text.push_str(&"A".repeat(fill));
        Identity::from_token(&text, now())
    };
    assert!(long(TOKEN_BYTES).is_ok());
    assert!(matches!(
        long(TOKEN_BYTES + 1),
        Err(KeylessError::TokenLength)
    ));

    // A token for somebody else does not go to the public authority, whoever named that; to one of a person's choice it does.
    let other = CLAIMS.replace("\"sigstore\"", "\"vault.example\"");
    let identity = || Identity::from_token(&token(&other), now()).unwrap();
    assert!(matches!(
        Keyless::new(Services::public_good().unwrap(), identity(), None, &[]),
        Err(KeylessError::Audience(_))
    ));
    let chosen = |fulcio: &str| Services::chosen(fulcio, "https://rekor.test", None).unwrap();
    for public in [
        "https://fulcio.sigstore.dev",
        "https://FULCIO.sigstore.dev./",
    ] {
        assert!(matches!(
            Keyless::new(chosen(public), identity(), Some("vault.example"), &[]),
            Err(KeylessError::Audience(_))
        ));
        let theirs = Identity::from_token(&token(CLAIMS), now()).unwrap();
        assert!(Keyless::new(chosen(public), theirs, None, &[]).is_ok());
    }
    let own = || chosen("https://fulcio.test");
    assert!(Keyless::new(own(), identity(), None, &[]).is_ok());
    assert!(Keyless::new(own(), identity(), Some("vault.example"), &[]).is_ok());
    assert!(matches!(
        Keyless::new(own(), identity(), Some("fulcio.test"), &[]),
        Err(KeylessError::OtherAudience(..))
    ));
    // One for the public authority goes to no other by itself, nor to one that is only called like it.
    for other in [
        "https://fulcio.test",
        "https://notsigstore.dev",
        "https://sigstore.dev.test",
    ] {
        let theirs = || Identity::from_token(&token(CLAIMS), now()).unwrap();
        assert!(matches!(
            Keyless::new(chosen(other), theirs(), None, &[]),
            Err(KeylessError::PublicAudience(_))
        ));
        assert!(Keyless::new(chosen(other), theirs(), Some(AUDIENCE), &[]).is_ok());
    }
    assert_eq!(chosen("https://fulcio.sigstore.dev").audience(), AUDIENCE);
    assert_eq!(own().audience(), "https://fulcio.test");
}

#[test]
fn a_token_goes_nowhere_in_the_clear() {
    let chosen = |fulcio: &str| Services::chosen(fulcio, "https://rekor.test", None);
    for good in [
        "https://fulcio.test",
        "http://127.0.0.1:80",
        "http://[::1]:1",
    ] {
        assert!(chosen(good).is_ok(), "{good}");
    }
    for bad in [
        "http://fulcio.test",
        "http://127.0.0.1.fulcio.test",
        "http://localhost.test",
        "ftp://127.0.0.1",
        "fulcio.test",
        "",
    ] {
        assert!(
            matches!(chosen(bad), Err(KeylessError::Address(_))),
            "{bad}"
        );
    }
    let timestamp = Services::chosen(
        "https://fulcio.test",
        "https://rekor.test",
        Some("http://tsa.test"),
    );
    assert!(timestamp.is_err());
}

#[test]
fn services_come_from_the_instance_or_a_file_within_its_bound() {
    let public = Services::public_good().unwrap();
    assert!(public.are_public() && public.issuer().is_some());
    let config = sigstore_sign::trust_root::SIGSTORE_PRODUCTION_SIGNING_CONFIG;
    let padded = |length: usize| {
        Services::from_config(format!("{config}{}", " ".repeat(length - config.len())).as_bytes())
    };
    assert_eq!(
        padded(CONFIG_BYTES).unwrap().authority(),
        public.authority()
    );
    assert!(matches!(
        padded(CONFIG_BYTES + 1),
        Err(KeylessError::Config(_))
    ));
    let plain = config.replace("https://fulcio", "http://fulcio");
    assert!(Services::from_config(plain.as_bytes()).is_err());
}

type Answering = fn(&[u8]) -> Vec<u8>;

/// What a stand-in does with a question.
#[derive(Clone)]
enum Does {
    Says(&'static str, Vec<u8>),
    /// Answers what it makes of the question.
    Answers(Answering),
    /// Answers that status and goes on for longer than anybody listens.
    NeverEnds(&'static str),
}

/// One that does the same for whoever asks; and how many bytes of its answers were taken.
fn stand_in(does: Does) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = taken.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(text) = line.to_lowercase().strip_prefix("content-length: ") {
                    length = text.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut question = vec![0; length];
            reader.read_exact(&mut question).unwrap();
            let (status, body) = match &does {
                Does::Says(status, body) => (*status, body.clone()),
                Does::Answers(with) => ("201 Created", with(&question)),
                Does::NeverEnds(status) => (*status, Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let _ = stream.write_all(&body);
            // Space, which JSON lets anybody begin with.
            let mut left = match does {
                Does::NeverEnds(_) => 1024,
                Does::Says(..) | Does::Answers(_) => 0,
            };
            while left > 0 && stream.write_all(&[b' '; 64 * 1024]).is_ok() {
                left -= 1;
                counter.fetch_add(64 * 1024, Ordering::SeqCst);
            }
        }
    });
    (url, taken)
}

fn issued(pem: &str) -> Vec<u8> {
    json!({ "signedCertificateEmbeddedSct": { "chain": { "certificates": [pem] } } })
        .to_string()
        .into_bytes()
}

/// A key on P-256, as RFC 5480 has it in DER: its point comes last.
struct Point(Vec<u8>);

impl rcgen::PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        self.0.last_chunk::<65>().unwrap()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A certificate of the key that is asked about.
fn certified(question: &[u8]) -> Vec<u8> {
    let question: Value = serde_json::from_slice(question).unwrap();
    let key = question["publicKeyRequest"]["publicKey"]["content"].as_str();
    let key = sigstore_types::DerPublicKey::from_pem(key.unwrap()).unwrap();
    let key = Point(key.as_bytes().to_vec());
    let own = rcgen::KeyPair::generate().unwrap();
    let params = || rcgen::CertificateParams::new(vec!["x.test".to_owned()]).unwrap();
    let made = params().signed_by(&key, &rcgen::Issuer::new(params(), own));
    let der = made.unwrap().der().to_vec();
    issued(&sigstore_types::DerCertificate::new(der).to_pem())
}

fn of_another_key(_: &[u8]) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["x.test".to_owned()]).unwrap();
    issued(&sigstore_types::DerCertificate::new(made.cert.der().to_vec()).to_pem())
}

/// The entry that a log of the first version makes of an envelope, and what was changed in it.
fn entry_with(question: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let question: Value = serde_json::from_slice(question).unwrap();
    let content = &question["spec"]["proposedContent"];
    let envelope: Value = serde_json::from_str(content["envelope"].as_str().unwrap()).unwrap();
    let payload = STANDARD
        .decode(envelope["payload"].as_str().unwrap())
        .unwrap();
    let mut body = json!({ "apiVersion": "0.0.1", "kind": "dsse", "spec": {
        "envelopeHash": { "algorithm": "sha256", "value": "0".repeat(64) },
        "payloadHash": { "algorithm": "sha256", "value": Digest::of(&payload).hex() },
        "signatures": [{ "signature": envelope["signatures"][0]["sig"], "verifier": content["verifiers"][0] }],
    } });
    change(&mut body);
    json!({ "uuid": {
        "body": STANDARD.encode(body.to_string()), "integratedTime": 1, "logID": "0".repeat(64), "logIndex": 1,
        "verification": { "signedEntryTimestamp": "c2V0" },
    } })
    .to_string()
    .into_bytes()
}

fn noted(question: &[u8]) -> Vec<u8> {
    entry_with(question, |_| {})
}

async fn signed(fulcio: &str, rekor: &str, timestamp: &str) -> Result<Made, String> {
    let services = Services::chosen(fulcio, rekor, Some(timestamp)).unwrap();
    let claims = CLAIMS.replace("\"sigstore\"", "\"stand-in\"");
    let identity = Identity::from_token(&token(&claims), now()).unwrap();
    let mut keyless = Keyless::new(services, identity, None, &[]).unwrap();
    keyless.client = reqwest::Client::builder().no_proxy().build().unwrap();
    let subject = Digest::of(b"image");
    keyless.image(&subject).await.map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_service_that_never_stops_answering_is_left_at_a_bound() {
    let answers = |with| stand_in(Does::Answers(with)).0;
    for status in ["200 OK", "500 No"] {
        for which in 0..3 {
            let (endless, taken) = stand_in(Does::NeverEnds(status));
            let mut urls = [answers(certified), answers(noted), endless.clone()];
            urls[which].clone_from(&endless);
            let refused = signed(&urls[0], &urls[1], &urls[2]).await.unwrap_err();
            let expected = match status {
                "200 OK" => format!("{endless} answers more than it may ({SERVICE_BYTES} bytes)"),
                _ => format!("{endless} answers 500 Internal Server Error"),
            };
            assert_eq!(refused, expected);
            // What was taken and not read is in the sockets' buffers.
            let taken = taken.load(Ordering::SeqCst);
            assert!(taken < SERVICE_BYTES + (16 << 20), "{taken}");
        }
    }
}

#[tokio::test]
async fn an_answer_has_its_bound_and_no_more() {
    let whole = async |length: usize| {
        let (url, _) = stand_in(Does::Says("200 OK", vec![b' '; length]));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(&url).body("x").send().await.unwrap();
        asked::whole("it", answer, SERVICE_BYTES).await
    };
    assert_eq!(whole(SERVICE_BYTES).await.unwrap().len(), SERVICE_BYTES);
    assert!(whole(SERVICE_BYTES + 1).await.is_err());

    let workflow = async |length: usize| {
        let mut body = br#"{"value":"a.b.c"}"#.to_vec();
        body.resize(length, b' ');
        let (url, _) = stand_in(Does::Says("200 OK", body));
        oidc::of_workflow(&[], &url, "x", "y").await
    };
    assert_eq!(
        *workflow(oidc::ANSWER_BYTES).await.unwrap(),
        "a.b.c".to_owned()
    );
    assert!(workflow(oidc::ANSWER_BYTES + 1).await.is_err());
}

#[tokio::test]
async fn what_is_no_answer_to_the_question_is_refused_by_name() {
    let says = |status, body: &[u8]| stand_in(Does::Says(status, body.to_vec())).0;
    let answers = |with| stand_in(Does::Answers(with)).0;
    let nobody = "http://127.0.0.1:1";
    let authority = says("400 Bad", b"no \x1b[31m such token\n");
    assert_eq!(
        signed(&authority, nobody, nobody).await.unwrap_err(),
        format!("{authority} answers 400 Bad Request no \\u{{1b}}[31m such token")
    );
    for none in [
        "{}",
        r#"{"signedCertificateEmbeddedSct":{"chain":{"certificates":[]}}}"#,
        r#"{"signedCertificateEmbeddedSct":{"chain":{"certificates":["x"]}}}"#,
    ] {
        let authority = says("200 OK", none.as_bytes());
        let refused = signed(&authority, nobody, nobody).await.unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
    }
    let authority = answers(of_another_key);
    assert_eq!(
        signed(&authority, nobody, nobody).await.unwrap_err(),
        format!("{authority} answers with a certificate of another key than it was asked for")
    );
    for none in ["{}", "[]", r#"{"uuid":{}}"#] {
        let log = says("200 OK", none.as_bytes());
        let refused = signed(&answers(certified), &log, nobody).await;
        assert!(refused.unwrap_err().starts_with(&log));
    }
    let others: [Answering; 6] = [
        |q| {
            entry_with(q, |body| {
                body["spec"]["payloadHash"]["value"] = "0".repeat(64).into()
            })
        },
        |q| {
            entry_with(q, |body| {
                body["spec"]["payloadHash"]["algorithm"] = "sha512".into()
            })
        },
        |q| {
            entry_with(q, |body| {
                body["spec"]["signatures"][0]["signature"] = "c2ln".into()
            })
        },
        |q| {
            let other: Value = serde_json::from_slice(&of_another_key(q)).unwrap();
            let pem = &other["signedCertificateEmbeddedSct"]["chain"]["certificates"][0];
            let verifier = STANDARD.encode(pem.as_str().unwrap());
            entry_with(q, |body| {
                body["spec"]["signatures"][0]["verifier"] = verifier.into()
            })
        },
        |q| {
            entry_with(q, |body| {
                let signatures = body["spec"]["signatures"].as_array_mut().unwrap();
                signatures.push(signatures[0].clone());
            })
        },
        |q| {
            let entry = String::from_utf8(noted(q)).unwrap();
            entry
                .replace("signedEntryTimestamp", "nothing")
                .into_bytes()
        },
    ];
    for other in others {
        let log = answers(other);
        let refused = signed(&answers(certified), &log, nobody).await.unwrap_err();
        assert_eq!(
            refused,
            format!("{log} answers what is no entry: it is not what was sent")
        );
    }
    let clock = says("200 OK", b"0\x03");
    let refused = signed(&answers(certified), &answers(noted), &clock).await;
    assert!(refused.unwrap_err().starts_with(&clock));
}
