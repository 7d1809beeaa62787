#![allow(clippy::unwrap_used)]
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

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
