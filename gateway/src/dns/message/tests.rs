#![allow(clippy::unwrap_used)]
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;

use super::*;

struct Parts {
    flags: u16,
    counts: [u16; 4],
    question: Vec<u8>,
    additional: Vec<u8>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            flags: 0x0100,
            counts: [1, 0, 0, 0],
            question: question("eXample.com", 1, 1),
            additional: Vec::new(),
        }
    }
}

fn question(name: &str, kind: u16, class: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|l| !l.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&class.to_be_bytes());
    out
}

fn opt(version: u8, options: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 41, 4, 208, 0, version, 0x80, 0];
    out.extend_from_slice(&(options.len() as u16).to_be_bytes());
    out.extend_from_slice(options);
    out
}

impl Parts {
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0xab, 0xcd];
        out.extend_from_slice(&self.flags.to_be_bytes());
        for count in self.counts {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out.extend_from_slice(&self.question);
        out.extend_from_slice(&self.additional);
        out
    }

    fn with_opt(additional: Vec<u8>) -> Self {
        Self {
            counts: [1, 0, 0, 1],
            additional,
            ..Self::default()
        }
    }
}

const MALFORMED: Refusal = Refusal::Malformed { id: 0xabcd };

#[test]
fn an_answer_is_read_back_by_another_library_with_the_case_of_its_question() {
    for edns in [false, true] {
        let parts = if edns {
            Parts::with_opt(opt(0, &[0, 10, 0, 2, 1, 2]))
        } else {
            Parts::default()
        };
        let query = parse(&parts.bytes()).unwrap();
        assert_eq!(query.name().unwrap(), "eXample.com");
        assert!(query.is_internet() && query.kind == TYPE_A);
        let bytes = query.address(Ipv4Addr::new(198, 18, 1, 7));
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.id, 0xabcd);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.metadata.recursion_desired && answer.metadata.authoritative);
        assert_eq!(answer.queries.len(), 1);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].name.to_ascii(), "eXample.com.");
        assert_eq!(answer.answers[0].ttl, limits::DNS_TTL);
        assert!(
            matches!(&answer.answers[0].data, RData::A(a) if a.0 == Ipv4Addr::new(198, 18, 1, 7))
        );
        assert_eq!(answer.edns.is_some(), edns);
    }
}

#[test]
fn an_empty_answer_says_why_and_for_how_long() {
    for (code, expected) in [
        (Code::NoError, ResponseCode::NoError),
        (Code::NxDomain, ResponseCode::NXDomain),
        (Code::ServFail, ResponseCode::ServFail),
        (Code::Refused, ResponseCode::Refused),
    ] {
        let query = parse(&Parts::default().bytes()).unwrap();
        let answer = Message::from_vec(&query.empty(code)).unwrap();
        assert_eq!(answer.metadata.response_code, expected);
        assert!(answer.answers.is_empty());
        let negative = matches!(code, Code::NoError | Code::NxDomain);
        assert_eq!(answer.authorities.len(), usize::from(negative));
    }
    let query = parse(&Parts::with_opt(opt(1, &[])).bytes()).unwrap();
    assert!(query.is_unknown_edns());
    let answer = Message::from_vec(&query.empty(Code::BadVers)).unwrap();
    assert_eq!(u16::from(answer.metadata.response_code), 16);
}

#[test]
fn every_prefix_is_refused_and_every_wrong_byte_is_no_panic() {
    let bytes = Parts::with_opt(opt(0, &[0, 10, 0, 2, 1, 2])).bytes();
    for end in 0..bytes.len() {
        let refusal = parse(&bytes[..end]).unwrap_err();
        assert_eq!(refusal == Refusal::Drop, end < 12);
    }
    for at in 0..bytes.len() {
        for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            if let Ok(query) = parse(&wrong) {
                let _ = query.name();
                assert!(Message::from_vec(&query.empty(Code::NoError)).is_ok());
            }
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(parse(&longer), Err(MALFORMED));
}

#[test]
fn what_is_no_query_gets_no_answer() {
    let response = Parts {
        flags: 0x8180,
        ..Parts::default()
    };
    assert_eq!(parse(&response.bytes()), Err(Refusal::Drop));
    assert_eq!(Refusal::Drop.answer(), None);
    for opcode in [1, 2, 4, 5, 15] {
        let parts = Parts {
            flags: opcode << 11,
            ..Parts::default()
        };
        let refusal = parse(&parts.bytes()).unwrap_err();
        let answer = Message::from_vec(&refusal.answer().unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NotImp);
    }
}

#[test]
fn there_is_one_question_and_nothing_else() {
    for counts in [
        [0, 0, 0, 0],
        [2, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [1, 0, 0, 2],
        [1, 0, 0, 1],
    ] {
        let parts = Parts {
            counts,
            ..Parts::default()
        };
        assert_eq!(parse(&parts.bytes()), Err(MALFORMED), "{counts:?}");
    }
    let answer = Message::from_vec(&MALFORMED.answer().unwrap()).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    // TSIG, SIG(0) and everything but OPT.
    let mut other = opt(0, &[]);
    other[2] = 250;
    assert_eq!(parse(&Parts::with_opt(other).bytes()), Err(MALFORMED));
    // An OPT record that is not the root's, or whose options run past it.
    let mut named = vec![1, b'a'];
    named.extend(opt(0, &[]));
    assert_eq!(parse(&Parts::with_opt(named).bytes()), Err(MALFORMED));
    assert_eq!(
        parse(&Parts::with_opt(opt(0, &[0, 10, 0, 9, 1])).bytes()),
        Err(MALFORMED)
    );
    for flags in [0x0300, 0x0101] {
        let parts = Parts {
            flags,
            ..Parts::default()
        };
        assert_eq!(parse(&parts.bytes()), Err(MALFORMED));
    }
}

#[test]
fn names_are_not_compressed_and_have_bounds() {
    let mut pointer = vec![0xc0, 12];
    pointer.extend([0, 1, 0, 1]);
    let parts = Parts {
        question: pointer,
        ..Parts::default()
    };
    assert_eq!(parse(&parts.bytes()), Err(MALFORMED));

    let of = |labels: &[usize]| {
        let name: Vec<String> = labels.iter().map(|n| "a".repeat(*n)).collect();
        let parts = Parts {
            question: question(&name.join("."), 1, 1),
            ..Parts::default()
        };
        parse(&parts.bytes())
    };
    assert!(of(&[63, 1]).is_ok());
    assert_eq!(of(&[64, 1]), Err(MALFORMED));
    // 255 bytes on the wire: 3 * 64 + 62 + the root.
    assert!(of(&[63, 63, 63, 61]).is_ok());
    assert_eq!(of(&[63, 63, 63, 62]), Err(MALFORMED));
}

#[test]
fn a_message_has_a_bound() {
    let of = |n: usize| {
        let empty = Parts::with_opt(opt(0, &[])).bytes().len();
        let mut options = vec![0, 12];
        let length = n - empty - 4;
        options.extend((length as u16).to_be_bytes());
        options.extend(vec![0; length]);
        parse(&Parts::with_opt(opt(0, &options)).bytes())
    };
    assert!(of(limits::DNS_MESSAGE).is_ok());
    assert_eq!(of(limits::DNS_MESSAGE + 1), Err(Refusal::Drop));
}

#[test]
fn a_label_that_no_host_has_is_no_name() {
    for label in [&b"a.b"[..], b"a b", b"a\0", b"\xff"] {
        let mut question = vec![label.len() as u8];
        question.extend_from_slice(label);
        question.extend([3, b'c', b'o', b'm', 0, 0, 1, 0, 1]);
        let parts = Parts {
            question,
            ..Parts::default()
        };
        assert_eq!(parse(&parts.bytes()).unwrap().name(), None);
    }
}
