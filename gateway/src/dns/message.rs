//! DNS messages, only as much of them as a server needs that answers one question and forwards nothing: a strict reader
//! of queries and a writer of answers. Called by `dns::serve`, fuzzed as `dns`; the tests read every answer back with
//! hickory-proto. Layout: RFC 1035, 4.1; EDNS: RFC 6891, 6.1.

use std::net::Ipv4Addr;

use crate::limits;

pub const TYPE_A: u16 = 1;
pub const TYPE_SOA: u16 = 6;
pub const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const HEADER: usize = 12;

/// A query that is well formed, whatever it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub id: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    /// The question as it stood on the wire: name, type, class. Echoed, so the case of the name is kept.
    question: Vec<u8>,
    /// Labels left to right, as sent.
    labels: Vec<Vec<u8>>,
    pub kind: u16,
    pub class: u16,
    /// The client sent an OPT record, so the answer carries one.
    edns: Option<Edns>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edns {
    version: u8,
    dnssec_ok: bool,
}

/// What is answered without a query having been understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Shorter than a header, too long, or itself a response: no answer at all.
    #[error("not a query")]
    Drop,
    /// Answered with FORMERR and an empty question.
    #[error("a malformed query")]
    Malformed { id: u16 },
    /// Answered with NOTIMP.
    #[error("an operation other than a query")]
    Operation { id: u16, opcode: u8 },
}

/// RCODE of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    /// EDNS version not known; its upper bits go into the OPT record.
    BadVers = 16,
}

/// Reads a query. Exactly one question, no records but at most one OPT, no name compression, nothing behind the end.
pub fn parse(message: &[u8]) -> Result<Query, Refusal> {
    let Some((header, mut rest)) = message.split_at_checked(HEADER) else {
        return Err(Refusal::Drop);
    };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (id, flags) = (word(0), word(2));
    if message.len() > limits::DNS_MESSAGE || flags & 0x8000 != 0 {
        return Err(Refusal::Drop);
    }
    let opcode = (flags >> 11 & 0xf) as u8;
    if opcode != 0 {
        return Err(Refusal::Operation { id, opcode });
    }
    let malformed = Refusal::Malformed { id };
    // Truncated, an answer code in a query, or counts other than 1 question, 0 answers, 0 authorities, ≤ 1 additional.
    if flags & 0x020f != 0 || word(4) != 1 || word(6) != 0 || word(8) != 0 || word(10) > 1 {
        return Err(malformed);
    }
    let start = rest;
    let labels = name(&mut rest).ok_or(malformed)?;
    let kind = u16_be(&mut rest).ok_or(malformed)?;
    let class = u16_be(&mut rest).ok_or(malformed)?;
    let question = start[..start.len() - rest.len()].to_vec();
    let edns = match word(10) {
        0 => None,
        _ => Some(opt(&mut rest).ok_or(malformed)?),
    };
    if !rest.is_empty() {
        return Err(malformed);
    }
    Ok(Query {
        id,
        recursion_desired: flags & 0x0100 != 0,
        checking_disabled: flags & 0x0010 != 0,
        question,
        labels,
        kind,
        class,
        edns,
    })
}

impl Query {
    pub fn is_internet(&self) -> bool {
        self.class == CLASS_IN
    }

    /// An EDNS version that is not 0.
    pub fn is_unknown_edns(&self) -> bool {
        self.edns.is_some_and(|edns| edns.version != 0)
    }

    pub fn labels(&self) -> &[Vec<u8>] {
        &self.labels
    }

    /// The name with dots, when every label is plain ASCII without a dot; no other name can be a host.
    pub fn name(&self) -> Option<String> {
        let mut text = String::with_capacity(self.question.len());
        for (i, label) in self.labels.iter().enumerate() {
            if !label.iter().all(|b| b.is_ascii_graphic() && *b != b'.') {
                return None;
            }
            if i > 0 {
                text.push('.');
            }
            text.push_str(std::str::from_utf8(label).ok()?);
        }
        Some(text)
    }

    /// An answer with one A record.
    pub fn address(&self, address: Ipv4Addr) -> Vec<u8> {
        let mut out = self.header(Code::NoError, 1, 0);
        out.extend_from_slice(&[0xc0, HEADER as u8]); // the name of the question
        push_all(&mut out, &[TYPE_A, CLASS_IN]);
        out.extend_from_slice(&limits::DNS_TTL.to_be_bytes());
        push_all(&mut out, &[4]);
        out.extend_from_slice(&address.octets());
        self.finish(out, Code::NoError)
    }

    /// An answer without records. NOERROR and NXDOMAIN carry an SOA, so that the client may remember them (RFC 2308).
    pub fn empty(&self, code: Code) -> Vec<u8> {
        let negative = matches!(code, Code::NoError | Code::NxDomain);
        let mut out = self.header(code, 0, u16::from(negative));
        if negative {
            out.push(0); // the root: no zone of anybody's is claimed
            push_all(&mut out, &[TYPE_SOA, CLASS_IN]);
            out.extend_from_slice(&limits::DNS_TTL.to_be_bytes());
            push_all(&mut out, &[22]);
            out.extend_from_slice(&[0, 0]); // MNAME, RNAME: the root
            for number in [1, 3600, 600, 86400, limits::DNS_TTL] {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        self.finish(out, code)
    }

    fn header(&self, code: Code, answers: u16, authorities: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.question.len() + 64);
        // QR, AA, RA; RD and CD as asked.
        let flags = 0x8000
            | 0x0400
            | 0x0080
            | u16::from(self.recursion_desired) << 8
            | u16::from(self.checking_disabled) << 4
            | code as u16 & 0xf;
        push_all(
            &mut out,
            &[
                self.id,
                flags,
                1,
                answers,
                authorities,
                u16::from(self.edns.is_some()),
            ],
        );
        out.extend_from_slice(&self.question);
        out
    }

    fn finish(&self, mut out: Vec<u8>, code: Code) -> Vec<u8> {
        if let Some(edns) = self.edns {
            out.push(0);
            push_all(&mut out, &[TYPE_OPT, limits::DNS_MESSAGE as u16]);
            // Extended RCODE, version 0, flags, no options.
            out.extend_from_slice(&[(code as u16 >> 4) as u8, 0]);
            push_all(&mut out, &[u16::from(edns.dnssec_ok) << 15, 0]);
        }
        out
    }
}

impl Refusal {
    /// The answer, if there is one: a header and nothing else.
    pub fn answer(self) -> Option<Vec<u8>> {
        let (id, opcode, code) = match self {
            Self::Drop => return None,
            Self::Malformed { id } => (id, 0, Code::FormErr),
            Self::Operation { id, opcode } => (id, opcode, Code::NotImp),
        };
        let mut out = Vec::with_capacity(HEADER);
        let flags = 0x8000 | u16::from(opcode) << 11 | code as u16;
        push_all(&mut out, &[id, flags, 0, 0, 0, 0]);
        Some(out)
    }
}

fn push_all(out: &mut Vec<u8>, words: &[u16]) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

fn u16_be(rest: &mut &[u8]) -> Option<u16> {
    let (bytes, tail) = rest.split_first_chunk::<2>()?;
    *rest = tail;
    Some(u16::from_be_bytes(*bytes))
}

/// An uncompressed name of at most 255 bytes (RFC 1035, 2.3.4).
fn name(rest: &mut &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut labels = Vec::new();
    let mut length = 1;
    loop {
        let (&n, tail) = rest.split_first()?;
        if n == 0 {
            *rest = tail;
            return Some(labels);
        }
        // 63 is the longest label; the two high bits would be a pointer or an extended label.
        if n > 63 {
            return None;
        }
        let (label, tail) = tail.split_at_checked(usize::from(n))?;
        length += 1 + label.len();
        if length > 255 {
            return None;
        }
        labels.push(label.to_vec());
        *rest = tail;
    }
}

/// The OPT record of a query. Its options are skipped: nothing in them is answered.
fn opt(rest: &mut &[u8]) -> Option<Edns> {
    let (&root, tail) = rest.split_first()?;
    *rest = tail;
    if root != 0 || u16_be(rest)? != TYPE_OPT {
        return None;
    }
    let _payload = u16_be(rest)?;
    let extended_and_version = u16_be(rest)?;
    let flags = u16_be(rest)?;
    let length = usize::from(u16_be(rest)?);
    let (mut options, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    while !options.is_empty() {
        u16_be(&mut options)?;
        let length = usize::from(u16_be(&mut options)?);
        options = options.split_at_checked(length)?.1;
    }
    Some(Edns {
        version: (extended_and_version & 0xff) as u8,
        dnssec_ok: flags & 0x8000 != 0,
    })
}

#[cfg(test)]
mod tests;
