//! What is read from an X.509 certificate beyond what rustls gives: its signature's hash, its names, its dates.
//!
//! ```text
//! Certificate    = SEQ { TBSCertificate, signatureAlgorithm SEQ { OID, parameters }, BIT STRING }
//! TBSCertificate = SEQ { [0] version?, INTEGER serial, SEQ algorithm, SEQ issuer, SEQ { notBefore, notAfter },
//!                        SEQ subject, SEQ key, [1]?, [2]?, [3] SEQ of SEQ { OID, BOOLEAN?, OCTET STRING }? }
//! ```
//! Guarantees: any bytes give a value or `None`.

use aws_lc_rs::digest;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Takes one element: its tag, its content and what follows it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Takes an element of one tag: its content and what follows it.
fn expect(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    element(input).and_then(|(found, content, rest)| (found == tag).then_some((content, rest)))
}

/// The elements of a content.
fn elements(mut input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(input)?;
        input = rest;
        Some((tag, content))
    })
}

/// The hash of an algorithm's identifier: a signature's or a hash's own.
fn hash_of(algorithm: &[u8]) -> Option<&'static digest::Algorithm> {
    const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
    let (oid, parameters) = expect(OID, algorithm)?;
    if let Some(last) = oid.strip_prefix(PKCS1) {
        return match last {
            // RFC 5929, 4.1: MD5 and SHA-1 are replaced by SHA-256.
            [4 | 5 | 11] => Some(&digest::SHA256),
            [12] => Some(&digest::SHA384),
            [13] => Some(&digest::SHA512),
            [14] => Some(&digest::SHA224),
            // RSASSA-PSS: the hash is the first parameter; SHA-1 when absent.
            [10] => match expect(SEQUENCE, parameters).and_then(|(content, _)| expect(0xa0, content)) {
                Some((hash, _)) => hash_of(expect(SEQUENCE, hash)?.0),
                None => Some(&digest::SHA256),
            },
            _ => None,
        };
    }
    match oid.strip_prefix(ECDSA).or_else(|| oid.strip_prefix(SHA2)) {
        Some([1] | [3, 2]) if oid.starts_with(ECDSA) => Some(&digest::SHA256),
        Some([3, 1]) => Some(&digest::SHA224),
        Some([3, 3]) => Some(&digest::SHA384),
        Some([3, 4]) => Some(&digest::SHA512),
        Some([1]) => Some(&digest::SHA256),
        Some([2]) => Some(&digest::SHA384),
        Some([3]) => Some(&digest::SHA512),
        Some([4]) => Some(&digest::SHA224),
        _ if oid == SHA1 => Some(&digest::SHA256),
        _ => None,
    }
}

/// The hash of a certificate for channel binding; `None` for signatures without a hash of their own (Ed25519).
pub(super) fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let (certificate, _) = expect(SEQUENCE, der)?;
    let (_, rest) = expect(SEQUENCE, certificate)?;
    let (algorithm, _) = expect(SEQUENCE, rest)?;
    Some(digest::digest(hash_of(algorithm)?, der).as_ref().to_vec())
}

/// The parts of a certificate that are looked at here.
pub(super) struct Certificate<'a> {
    subject: &'a [u8],
    validity: &'a [u8],
    extensions: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Reads a certificate.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let (certificate, _) = expect(SEQUENCE, der)?;
        let (body, _) = expect(SEQUENCE, certificate)?;
        let (tag, _, rest) = element(body)?;
        let rest = if tag == VERSION { element(rest)?.2 } else { rest };
        let (_, rest) = expect(SEQUENCE, rest)?;
        let (_, rest) = expect(SEQUENCE, rest)?;
        let (validity, rest) = expect(SEQUENCE, rest)?;
        let (subject, rest) = expect(SEQUENCE, rest)?;
        let (_, rest) = expect(SEQUENCE, rest)?;
        let wrapped = elements(rest).find(|(tag, _)| *tag == EXTENSIONS).map_or(&[][..], |(_, content)| content);
        let extensions = expect(SEQUENCE, wrapped).map_or(&[][..], |(content, _)| content);
        Some(Self { subject, validity, extensions })
    }

    /// Whether it names hosts or addresses where it should, so that its common name does not count.
    fn names_hosts(&self) -> bool {
        let dns_or_address = |tag: u8| tag == 0x82 || tag == 0x87;
        elements(self.extensions)
            .filter_map(|(_, extension)| expect(OID, extension))
            .filter(|(oid, _)| *oid == SUBJECT_ALT_NAME)
            .flat_map(|(_, rest)| elements(rest))
            .filter(|(tag, _)| *tag == OCTETS)
            .filter_map(|(_, octets)| expect(SEQUENCE, octets))
            .any(|(names, _)| elements(names).any(|(tag, _)| dns_or_address(tag)))
    }

    /// Whether its common name is this host's, as libpq compares it: only where no other host name is given,
    /// without regard to case, `*.` standing for one label.
    pub(super) fn common_name_is(&self, host: &str) -> bool {
        let names = elements(self.subject)
            .filter(|(tag, _)| *tag == SET)
            .flat_map(|(_, set)| elements(set))
            .filter_map(|(_, attribute)| expect(OID, attribute))
            .filter(|(oid, _)| *oid == COMMON_NAME)
            .filter_map(|(_, value)| std::str::from_utf8(element(value)?.1).ok());
        let fits = |name: &str| match name.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain)),
            None => name.eq_ignore_ascii_case(host),
        };
        !self.names_hosts() && names.last().is_some_and(fits)
    }

    /// Whether a moment, in seconds since 1970, lies between its dates. `None`: unreadable.
    pub(super) fn is_valid_at(&self, seconds: u64) -> Option<bool> {
        let now = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?.strftime("%Y%m%d%H%M%SZ").to_string();
        let mut dates = elements(self.validity).map(|(tag, content)| {
            let text = std::str::from_utf8(content).ok()?;
            // RFC 5280, 4.1.2.5.1: two digits below 50 are of this century.
            Some(if tag == UTC_TIME { format!("{}{text}", if text < "5" { "20" } else { "19" }) } else { text.to_owned() })
        });
        let (from, to) = (dates.next()??, dates.next()??);
        Some(from.as_str() <= now.as_str() && now.as_str() <= to.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_give_a_value_or_none() {
        for bytes in [&b""[..], b"\x30", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x01", b"\x30\x05\x30\x03\x02\x01\x01"] {
            assert!(end_point(bytes).is_none(), "{bytes:?}");
            assert!(Certificate::parse(bytes).is_none(), "{bytes:?}");
        }
    }
}
