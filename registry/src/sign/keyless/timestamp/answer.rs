//! What a timestamp authority answers, as far as it can be seen without knowing whom to believe (RFC 3161, 2.4.2; RFC 5652).

use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Decode, Sequence, Tag, Tagged};

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TIMESTAMP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// RFC 3161, 2.4.1: the hash that a timestamp is about.
#[derive(Clone, PartialEq, Sequence)]
pub struct Imprint {
    pub algorithm: Algorithm,
    pub hash: OctetString,
}

#[derive(Clone, PartialEq, Sequence)]
pub struct Algorithm {
    pub oid: ObjectIdentifier,
    #[asn1(optional = "true")]
    pub parameters: Option<Any>,
}

/// What a timestamp says of the question that it answers.
pub struct Told {
    pub imprint: Imprint,
    pub nonce: Option<Any>,
}

/// What an answer says, where one was granted.
pub fn told(answer: &[u8]) -> der::Result<Option<Told>> {
    let parts = Vec::<Any>::from_der(answer)?;
    let [status, token] = parts.as_slice() else {
        return Ok(None);
    };
    let status = status.decode_as::<Vec<Any>>()?;
    let granted = status.first().map(Any::decode_as::<u8>).transpose()?;
    let content = token.decode_as::<ContentInfo>()?;
    if !matches!(granted, Some(0 | 1)) || content.content_type != SIGNED_DATA {
        return Ok(None);
    }
    let signed = content.content.decode_as::<SignedData>()?;
    let signed = signed.encap_content_info;
    let Some(held) = signed
        .econtent
        .filter(|_| signed.econtent_type == TIMESTAMP)
    else {
        return Ok(None);
    };
    // Version, policy, imprint, serial number, time; then, of what may be there, the one integer is the number.
    let parts = Vec::<Any>::from_der(held.decode_as::<OctetString>()?.as_bytes())?;
    let (Some(imprint), Some(rest)) = (parts.get(2), parts.get(5..)) else {
        return Ok(None);
    };
    Ok(Some(Told {
        imprint: imprint.decode_as()?,
        nonce: rest.iter().find(|part| part.tag() == Tag::Integer).cloned(),
    }))
}
