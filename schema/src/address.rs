//! Addresses of services that secrets are sent to, or that trust comes from: over TLS, or on this machine.

use url::{Host, Url};

/// The host of an address that something secret may be sent to, in its one spelling; none where it may not.
pub fn private_host(text: &str) -> Option<String> {
    // Parsers leave these out in silence, or take them for others.
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if text.chars().any(odd) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let host = url.host()?;
    let is_here = match &host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.octets() == [127, 0, 0, 1],
        Host::Ipv6(address) => address.is_loopback(),
    };
    let is_private = match url.scheme() {
        "https" => true,
        "http" => is_here,
        _ => false,
    };
    let names_nobody = url.username().is_empty() && url.password().is_none();
    (is_private && names_nobody).then(|| host.to_string().trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_over_tls_or_stays_on_this_machine() {
        for (good, host) in [
            ("https://fulcio.test", "fulcio.test"),
            ("https://FULCIO.test./api?x=1", "fulcio.test"),
            ("https:fulcio.test", "fulcio.test"),
            ("http://127.0.0.1:80", "127.0.0.1"),
            ("http://0x7f.1/", "127.0.0.1"),
            ("http://localhost/x", "localhost"),
            ("http://[::1]:1", "[::1]"),
        ] {
            assert_eq!(private_host(good).as_deref(), Some(host), "{good}");
        }
        for bad in [
            "http://fulcio.test",
            "http://127.0.0.1.fulcio.test",
            "http://localhost.test",
            "http://localhost:1@evil.test/",
            "https://a:b@fulcio.test/",
            "https://a@fulcio.test/",
            "http://127.0.0.1\\@evil.test/",
            "http://127.0.0.2",
            "https://ful cio.test",
            "https://fulcio\n.test",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "fulcio.test",
            "https://",
            "",
        ] {
            assert_eq!(private_host(bad), None, "{bad}");
        }
    }
}
