//! Makes keys and certificates: self-signed ones, a root, leaves below it. Pure but for random numbers.
//!
//! Every certificate is given its validity here: rcgen's default runs from 1975 to 4096, which browsers refuse.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256,
};
use time::OffsetDateTime;

use super::error::TlsError;
use crate::types::clock::UnixMillis;
use crate::types::secret::Secret;

/// A day.
const DAY: Duration = Duration::from_hours(24);
/// Certificates begin a little earlier, for clients whose clock is late (SECURITY.md §D).
const EARLIER: Duration = Duration::from_hours(1);
/// How long a root is valid (SPEC §6: 10 years).
const ROOT: Duration = Duration::from_hours(24 * 3_652);
/// How long a leaf is valid (SPEC §6: 90 days).
pub(super) const LEAF: Duration = Duration::from_hours(24 * 90);
/// How long a self-signed certificate is valid: clients accept it one by one, so it changes rarely; browsers take at
/// most 398 days (CA/Browser Forum, Baseline Requirements §6.3.2).
const SELF_SIGNED: Duration = Duration::from_hours(24 * 397);

/// A certificate that was just made.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM, the leaf first.
    pub chain: String,
    /// PEM (PKCS #8).
    pub key: Secret,
}

/// What a root lets its leaves be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Permitted {
    /// Names; each stands for what is below it too (RFC 5280 §4.2.1.10).
    pub(super) names: Vec<String>,
    /// Networks.
    pub(super) networks: Vec<IpNet>,
}

impl Permitted {
    /// Whether a leaf may be for this name or address.
    pub(super) fn allows(&self, subject: &str) -> bool {
        match subject.parse::<IpAddr>() {
            Ok(address) => self.networks.iter().any(|network| network.contains(&address)),
            Err(_) => self.names.iter().any(|name| {
                subject.eq_ignore_ascii_case(name)
                    || subject.len().checked_sub(name.len() + 1).is_some_and(|at| {
                        subject.as_bytes()[at] == b'.' && subject[at + 1..].eq_ignore_ascii_case(name)
                    })
            }),
        }
    }
}

/// Makes a certificate that nobody vouches for.
pub(super) fn self_signed(subjects: Vec<String>, now: UnixMillis) -> Result<Issued, TlsError> {
    let key = new_key()?;
    let mut params = leaf_params(subjects, now, SELF_SIGNED)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "FLM, self-signed");
    params.distinguished_name = name;
    let certificate = params.self_signed(&key).map_err(not_made)?;
    Ok(Issued { chain: certificate.pem(), key: Secret::new(key.serialize_pem()) })
}

/// Makes a root that may sign leaves for what is permitted, and no other authority (path length 0).
pub(super) fn root(common_name: &str, permitted: &Permitted, now: UnixMillis) -> Result<Issued, TlsError> {
    let key = new_key()?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "FLM");
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let networks = permitted.networks.iter().map(|network| {
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(network.network(), network.prefix_len()))
    });
    let names = permitted.names.iter().cloned().map(GeneralSubtree::DnsName);
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: names.chain(networks).collect(), excluded_subtrees: Vec::new() });
    validity(&mut params, now, ROOT)?;
    let certificate = params.self_signed(&key).map_err(not_made)?;
    Ok(Issued { chain: certificate.pem(), key: Secret::new(key.serialize_pem()) })
}

/// Makes a server's certificate that a root vouches for. The chain is the leaf alone: whoever trusts the root has it.
pub(super) fn leaf(root: &str, root_key: &Secret, subjects: Vec<String>, now: UnixMillis) -> Result<Issued, TlsError> {
    let root_key = KeyPair::from_pem(root_key.expose()).map_err(not_made)?;
    let issuer = Issuer::from_ca_cert_pem(root, root_key).map_err(not_made)?;
    let key = new_key()?;
    let params = leaf_params(subjects, now, LEAF)?;
    let certificate = params.signed_by(&key, &issuer).map_err(not_made)?;
    Ok(Issued { chain: certificate.pem(), key: Secret::new(key.serialize_pem()) })
}

/// Makes a key, and a request for a certificate of it (RFC 2986): DER, and the key as PEM.
pub(super) fn request(subjects: Vec<String>) -> Result<(Vec<u8>, Secret), TlsError> {
    let key = new_key()?;
    let mut params = CertificateParams::new(subjects).map_err(not_made)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(not_made)?;
    Ok((request.der().to_vec(), Secret::new(key.serialize_pem())))
}

fn leaf_params(subjects: Vec<String>, now: UnixMillis, length: Duration) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(subjects).map_err(not_made)?;
    // Without a subject the alternative names are critical, as RFC 5280 §4.2.1.6 wants it.
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, now, length)?;
    Ok(params)
}

fn validity(params: &mut CertificateParams, now: UnixMillis, length: Duration) -> Result<(), TlsError> {
    let at = |time: UnixMillis| {
        OffsetDateTime::from_unix_timestamp(time.0.div_euclid(1000))
            .map_err(|error| TlsError::NotMade(format!("this machine's clock is out of range: {error}")))
    };
    params.not_before = at(now.minus(EARLIER))?;
    params.not_after = at(now.plus(length))?;
    Ok(())
}

fn new_key() -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(not_made)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn not_made(error: rcgen::Error) -> TlsError {
    TlsError::NotMade(error.to_string())
}

/// When a certificate is renewed: with 30 days left (SPEC §6), or a third of its life where that is shorter.
pub(super) fn renewal_of(not_before: UnixMillis, not_after: UnixMillis) -> UnixMillis {
    let third = not_after.since(not_before) / 3;
    not_after.minus(third.min(DAY * 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permitted_names_stand_for_what_is_below_them_and_nothing_beside() {
        let permitted = Permitted {
            names: vec!["box".into(), "localhost".into()],
            networks: vec!["10.0.0.0/8".parse().expect("net")],
        };
        for good in ["box", "BOX", "api.box", "localhost", "10.1.2.3"] {
            assert!(permitted.allows(good), "{good}");
        }
        for bad in ["xbox", "box.example", "evil", "11.0.0.1", "::1", ".box.x", ""] {
            assert!(!permitted.allows(bad), "{bad}");
        }
    }

    #[test]
    fn renewal_comes_thirty_days_before_the_end() {
        let begin = UnixMillis(0);
        assert_eq!(renewal_of(begin, begin.plus(DAY * 90)), begin.plus(DAY * 60));
        assert_eq!(renewal_of(begin, begin.plus(DAY * 30)), begin.plus(DAY * 20), "a short life is renewed later");
    }
}
