#![allow(clippy::unwrap_used)]
use super::*;

/// A ClientHello body made of parts.
#[derive(Clone)]
struct Hello {
    version: u16,
    session_id: usize,
    ciphers: Vec<u8>,
    compression: Vec<u8>,
    extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            version: 0x0303,
            session_id: 32,
            ciphers: vec![0x13, 0x01, 0x13, 0x02],
            compression: vec![0],
            extensions: Some(vec![
                (0x0a0a, vec![]),
                (0, sni(b"example.com")),
                (43, vec![2, 3, 4]),
            ]),
        }
    }
}

fn sni(name: &[u8]) -> Vec<u8> {
    sni_entries(&[(0, name)])
}

fn sni_entries(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, name) in entries {
        list.push(*kind);
        list.extend_from_slice(&(name.len() as u16).to_be_bytes());
        list.extend_from_slice(name);
    }
    let mut data = (list.len() as u16).to_be_bytes().to_vec();
    data.extend(list);
    data
}

impl Hello {
    fn with(extensions: Vec<(u16, Vec<u8>)>) -> Self {
        Self {
            extensions: Some(extensions),
            ..Self::default()
        }
    }

    fn body(&self) -> Vec<u8> {
        let mut out = self.version.to_be_bytes().to_vec();
        out.extend([7; 32]);
        out.push(self.session_id as u8);
        out.extend(vec![9; self.session_id]);
        out.extend((self.ciphers.len() as u16).to_be_bytes());
        out.extend(&self.ciphers);
        out.push(self.compression.len() as u8);
        out.extend(&self.compression);
        if let Some(extensions) = &self.extensions {
            let mut all = Vec::new();
            for (kind, data) in extensions {
                all.extend(kind.to_be_bytes());
                all.extend((data.len() as u16).to_be_bytes());
                all.extend(data);
            }
            out.extend((all.len() as u16).to_be_bytes());
            out.extend(all);
        }
        out
    }

    fn message(&self) -> Vec<u8> {
        let body = self.body();
        let mut out = vec![1];
        out.extend(&(body.len() as u32).to_be_bytes()[1..]);
        out.extend(body);
        out
    }
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in message.chunks(size) {
        out.extend([22, 3, 1]);
        out.extend((chunk.len() as u16).to_be_bytes());
        out.extend(chunk);
    }
    out
}

fn read(bytes: &[u8]) -> Result<Option<ClientHello>, Refusal> {
    Assembler::new().push(bytes)
}

fn read_hello(hello: &Hello) -> Result<Option<ClientHello>, Refusal> {
    read(&records(&hello.message(), limits::TLS_RECORD))
}

fn name(result: Result<Option<ClientHello>, Refusal>) -> Option<String> {
    result
        .unwrap()
        .map(|hello| hello.server_name.as_str().to_owned())
}

#[test]
fn the_one_server_name_is_read_in_canonical_form() {
    assert_eq!(name(read_hello(&Hello::default())).unwrap(), "example.com");
    let shouting = Hello::with(vec![(0, sni(b"EXAMPLE.Com"))]);
    assert_eq!(name(read_hello(&shouting)).unwrap(), "example.com");
}

#[test]
fn it_is_the_same_name_cut_at_every_byte() {
    let bytes = records(&Hello::default().message(), limits::TLS_RECORD);
    for cut in 0..bytes.len() {
        let mut assembler = Assembler::new();
        assert_eq!(assembler.push(&bytes[..cut]), Ok(None), "cut at {cut}");
        assert_eq!(name(assembler.push(&bytes[cut..])).unwrap(), "example.com");
    }
    let mut assembler = Assembler::new();
    let (last, all) = bytes.split_last().unwrap();
    for byte in all {
        assert_eq!(assembler.push(&[*byte]), Ok(None));
    }
    assert_eq!(name(assembler.push(&[*last])).unwrap(), "example.com");
}

#[test]
fn it_is_the_same_name_in_records_of_every_size() {
    let message = Hello::default().message();
    for size in 1..=message.len() {
        assert_eq!(name(read(&records(&message, size))).unwrap(), "example.com");
    }
    let mut assembler = Assembler::new();
    let mut found = None;
    for byte in records(&message, 1) {
        found = assembler.push(&[byte]).unwrap();
    }
    assert!(found.is_some());
}

#[test]
fn every_prefix_of_a_body_is_refused_without_a_panic() {
    let body = Hello::default().body();
    for end in 0..body.len() {
        assert!(parse(&body[..end]).is_err(), "{end}");
    }
    assert!(parse(&body).is_ok());
    let mut longer = body.clone();
    longer.push(0);
    assert_eq!(parse(&longer), Err(Refusal::Malformed));
}

#[test]
fn every_byte_of_a_hello_may_be_wrong_without_a_panic() {
    let bytes = records(&Hello::default().message(), limits::TLS_RECORD);
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            if let Ok(Some(hello)) = read(&wrong) {
                assert!(!hello.server_name.as_str().is_empty());
            }
        }
    }
}

#[test]
fn without_a_server_name_it_is_refused() {
    assert_eq!(
        read_hello(&Hello::with(vec![(43, vec![2, 3, 4])])),
        Err(Refusal::NoServerName)
    );
    let none = Hello {
        extensions: None,
        ..Hello::default()
    };
    assert_eq!(read_hello(&none), Err(Refusal::NoServerName));
}

#[test]
fn a_server_name_that_is_not_one_canonical_host_is_refused() {
    for bad in [
        &b""[..],
        b"example.com.",
        b"1.2.3.4",
        b"[::1]",
        b"exa mple.com",
        b"example\0.com",
        b"ex\xc3\xa4mple.com",
        b"a_b.com",
        b"example..com",
        b"*.example.com",
    ] {
        assert_eq!(
            read_hello(&Hello::with(vec![(0, sni(bad))])),
            Err(Refusal::BadServerName),
            "{bad:?}"
        );
    }
    for entries in [
        vec![(0, &b"a.example"[..]), (0, b"b.example")],
        vec![(1, b"a.example")],
        vec![(0, b"a.example"), (1, b"x")],
    ] {
        let hello = Hello::with(vec![(0, sni_entries(&entries))]);
        assert_eq!(read_hello(&hello), Err(Refusal::BadServerName));
    }
    let mut trailing = sni(b"example.com");
    trailing.push(0);
    assert_eq!(
        read_hello(&Hello::with(vec![(0, trailing)])),
        Err(Refusal::Malformed)
    );
}

#[test]
fn two_of_one_extension_are_refused() {
    let twice = vec![(0, sni(b"example.com")), (0, sni(b"evil.example"))];
    assert_eq!(
        read_hello(&Hello::with(twice)),
        Err(Refusal::DuplicateExtension)
    );
}

#[test]
fn an_encrypted_hello_is_refused_whatever_its_outer_name() {
    for kind in [0xfe0d, 0xffce, 0xff02, 0xff03, 0xfe08] {
        let hello = Hello::with(vec![(0, sni(b"example.com")), (kind, vec![0; 32])]);
        assert_eq!(read_hello(&hello), Err(Refusal::Encrypted));
        assert_eq!(Refusal::Encrypted.alert(), Some(Alert::HandshakeFailure));
    }
}

#[test]
fn what_is_not_tls_is_refused_as_soon_as_that_is_seen() {
    assert_eq!(read(b"GET / HTTP/1.1\r\n"), Err(Refusal::NotTls));
    assert_eq!(read(b"SSH-2.0-OpenSSH"), Err(Refusal::NotTls));
    assert_eq!(read(b"S"), Err(Refusal::NotTls));
    assert_eq!(read(&[22, 2]), Err(Refusal::NotTls));
    assert_eq!(read(&[22, 3, 0]), Err(Refusal::Version));
    assert_eq!(read(&[22, 3, 9]), Err(Refusal::NotTls));
    assert_eq!(read(&[0x80, 46, 1, 3, 1]), Err(Refusal::Ssl2));
    assert_eq!(read(&[0x80, 46, 4]), Err(Refusal::NotTls));
    assert_eq!(Refusal::NotTls.alert(), None);
}

#[test]
fn a_record_has_from_one_byte_to_its_bound() {
    assert_eq!(read(&[22, 3, 1, 0, 0]), Err(Refusal::Record));
    let [high, low] = (limits::TLS_RECORD as u16 + 1).to_be_bytes();
    assert_eq!(read(&[22, 3, 1, high, low]), Err(Refusal::Record));
    let [high, low] = (limits::TLS_RECORD as u16).to_be_bytes();
    assert_eq!(read(&[22, 3, 1, high, low]), Ok(None));
}

#[test]
fn only_a_client_hello_comes_first_and_alone() {
    assert_eq!(read(&[22, 3, 1, 0, 1, 2]), Err(Refusal::NotClientHello));
    // A record of another kind between two fragments.
    let message = Hello::default().message();
    let mut bytes = records(&message[..10], 10);
    bytes.extend([21, 3, 1, 0, 2, 1, 0]);
    assert_eq!(read(&bytes), Err(Refusal::Malformed));
    // A second message in the same record.
    let mut two = message.clone();
    two.extend(&message);
    assert_eq!(
        read(&records(&two, limits::TLS_RECORD)),
        Err(Refusal::Malformed)
    );
}

/// A hello of exactly so many bytes, padded by an unknown extension.
fn of_length(length: usize) -> Hello {
    let hello = |pad| Hello::with(vec![(0, sni(b"example.com")), (21, vec![0; pad])]);
    let empty = hello(0).message().len();
    hello(length - empty)
}

#[test]
fn a_hello_may_be_as_long_as_its_bound_and_no_longer() {
    // The extensions' own length field ends a little below the bound, so the rest is cipher suites.
    let mut hello = of_length(60_000);
    let more = limits::CLIENT_HELLO - hello.message().len();
    hello.ciphers.extend(vec![0; more]);
    if hello.ciphers.len() % 2 == 1 {
        hello.ciphers.pop();
        hello.session_id -= 1;
        hello.ciphers.push(0);
        hello.ciphers.push(0);
    }
    assert_eq!(hello.message().len(), limits::CLIENT_HELLO);
    assert_eq!(name(read_hello(&hello)).unwrap(), "example.com");
    // One byte more, as its header already says.
    let [_, a, b, c] = (limits::CLIENT_HELLO as u32 - 3).to_be_bytes();
    assert_eq!(read(&[22, 3, 1, 0, 4, 1, a, b, c]), Err(Refusal::TooLong));
    let [_, a, b, c] = (limits::CLIENT_HELLO as u32 - 4).to_be_bytes();
    assert_eq!(read(&[22, 3, 1, 0, 4, 1, a, b, c]), Ok(None));
}

#[test]
fn extensions_are_counted() {
    let some = |n: usize| {
        let mut list = vec![(0, sni(b"example.com"))];
        list.extend((1..n).map(|i| (0x1000 + i as u16, vec![])));
        read_hello(&Hello::with(list))
    };
    assert!(some(limits::TLS_EXTENSIONS).is_ok());
    assert_eq!(some(limits::TLS_EXTENSIONS + 1), Err(Refusal::Malformed));
}

#[test]
fn fields_of_impossible_length_are_refused() {
    for hello in [
        Hello {
            session_id: 33,
            ..Hello::default()
        },
        Hello {
            ciphers: vec![],
            ..Hello::default()
        },
        Hello {
            ciphers: vec![1],
            ..Hello::default()
        },
        Hello {
            compression: vec![],
            ..Hello::default()
        },
    ] {
        assert_eq!(read_hello(&hello), Err(Refusal::Malformed));
    }
    for version in [0x0300, 0x0304, 0x0002] {
        let hello = Hello {
            version,
            ..Hello::default()
        };
        assert_eq!(read_hello(&hello), Err(Refusal::Version));
    }
}

#[test]
fn an_alert_is_one_fatal_record() {
    assert_eq!(Alert::AccessDenied.record(), [21, 3, 3, 0, 2, 2, 49]);
    assert_eq!(Alert::UnrecognizedName.record()[6], 112);
}
