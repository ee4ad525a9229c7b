//! [`Authority`]: the home's own certificate authority (SPEC §6, `packaged-ca`).
//!
//! Its root is limited to this machine's names and addresses, loopback and chosen private networks, by critical name
//! constraints: a stolen key cannot vouch for the rest of the world. The key never leaves `security.db`.

use std::net::IpAddr;

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::describe_pem;
use super::error::{CertificateFault, TlsError};
use super::issuing::{self, Issued, Permitted};
use super::machine::Machine;
use crate::storage::SecurityStore;
use crate::types::calendar::date;
use crate::types::certificate::{CertificateView, StoredCertificate};
use crate::types::clock::UnixMillis;
use crate::types::text::escape;

/// Name of the root in the store.
pub const ROOT: &str = "packaged-ca/root";
/// Name of the listeners' certificate in the store.
pub const SERVER: &str = "packaged-ca/server";
/// Name of the one that clients get which call a name.
pub(super) const SERVER_BY_NAME: &str = "packaged-ca/server-by-name";

/// Networks that belong to nobody in particular: RFC 1918, RFC 6598 (as overlay networks use it), RFC 4193.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];

/// A root with its key.
#[derive(Debug, Clone)]
pub struct Authority {
    root: StoredCertificate,
    /// What it is, for people.
    pub view: CertificateView,
    permitted: Permitted,
}

/// A certificate made by an authority.
#[derive(Debug, Clone)]
pub struct ByAuthority {
    /// Chain and key.
    pub issued: Issued,
    /// Names and addresses that were asked for and are not allowed.
    pub refused: Vec<String>,
}

impl Authority {
    /// The authority of a home; `None` when there is none yet.
    ///
    /// # Errors
    /// Of the store, or when what it holds cannot be used.
    pub async fn load(store: &SecurityStore, now: UnixMillis) -> Result<Option<Self>, TlsError> {
        let Some(root) = store.certificate(ROOT).await? else { return Ok(None) };
        let unusable =
            |fault| TlsError::Unusable { what: "the root of this home's certificate authority".into(), fault };
        let view = describe_pem(&root.chain).map_err(unusable)?;
        if view.not_after <= now {
            return Err(unusable(CertificateFault::Expired { until: view.not_after }));
        }
        if view.not_before > now {
            return Err(unusable(CertificateFault::NotYetValid { from: view.not_before, now }));
        }
        let permitted = permitted_by(&root.chain).map_err(unusable)?;
        Ok(Some(Self { root, view, permitted }))
    }

    /// Makes an authority and stores it; what the one before it signed is forgotten.
    ///
    /// `networks` are the networks that it may vouch for besides the machine's own addresses; empty means the private
    /// ones.
    ///
    /// # Errors
    /// Of the store, or when no key can be made.
    pub async fn make(
        store: &SecurityStore,
        machine: &Machine,
        networks: &[IpNet],
        now: UnixMillis,
    ) -> Result<Self, TlsError> {
        let permitted = permitted_for(machine, networks);
        let host = machine.names.iter().find(|name| *name != "localhost");
        let host = host.map_or("this machine", String::as_str);
        let issued = issuing::root(&format!("FLM certificate authority of {host}, {}", date(now)), &permitted, now)?;
        let root = StoredCertificate { name: ROOT.into(), chain: issued.chain, key: issued.key, created: now };
        store.remove_certificate(SERVER).await?;
        store.remove_certificate(SERVER_BY_NAME).await?;
        store.put_certificates(vec![root]).await?;
        Self::load(store, now).await?.ok_or(TlsError::NoAuthority)
    }

    /// The root as PEM, for trust stores.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root.chain
    }

    /// Names and networks that it may vouch for.
    #[must_use]
    pub fn permitted(&self) -> Vec<String> {
        self.permitted.names.iter().cloned().chain(self.permitted.networks.iter().map(IpNet::to_string)).collect()
    }

    /// Splits names and addresses into those that it may vouch for and others.
    #[must_use]
    pub fn allowed(&self, subjects: Vec<String>) -> (Vec<String>, Vec<String>) {
        subjects.into_iter().partition(|subject| self.permitted.allows(subject))
    }

    /// Makes a server's certificate for what is allowed of `subjects`.
    ///
    /// # Errors
    /// `NothingAllowed` when that is nothing.
    pub fn issue(&self, subjects: Vec<String>, now: UnixMillis) -> Result<ByAuthority, TlsError> {
        let (allowed, refused) = self.allowed(subjects);
        if allowed.is_empty() {
            return Err(TlsError::NothingAllowed);
        }
        let issued = issuing::leaf(&self.root.chain, &self.root.key, allowed, now)?;
        Ok(ByAuthority { issued, refused })
    }
}

/// What an authority of this machine is limited to.
fn permitted_for(machine: &Machine, networks: &[IpNet]) -> Permitted {
    let mut permitted: Vec<IpNet> = "127.0.0.0/8".parse().into_iter().collect();
    let chosen: Vec<IpNet> = match networks {
        [] => PRIVATE.iter().filter_map(|text| text.parse().ok()).collect(),
        chosen => chosen.iter().map(IpNet::trunc).collect(),
    };
    permitted.extend(chosen);
    for network in &machine.networks {
        // A machine's IPv6 address changes within its network as it likes (RFC 8981).
        let own = match network {
            IpNet::V6(v6) if v6.prefix_len() >= 64 && v6.prefix_len() < 128 => network.trunc(),
            other => IpNet::from(other.addr()),
        };
        if !permitted.iter().any(|wider| wider.contains(&own)) {
            permitted.push(own);
        }
    }
    Permitted { names: machine.names.iter().cloned().collect(), networks: permitted }
}

/// Reads a root's name constraints back.
fn permitted_by(root: &str) -> Result<Permitted, CertificateFault> {
    let malformed = |reason: String| CertificateFault::Malformed { position: 1, reason };
    let der = CertificateDer::from_pem_slice(root.as_bytes()).map_err(|error| malformed(error.to_string()))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| malformed(error.to_string()))?;
    let constraints = parsed.name_constraints().map_err(|error| malformed(error.to_string()))?;
    let mut permitted = Permitted { names: Vec::new(), networks: Vec::new() };
    let subtrees = constraints.and_then(|constraints| constraints.value.permitted_subtrees.as_ref());
    for subtree in subtrees.into_iter().flatten() {
        match &subtree.base {
            GeneralName::DNSName(name) => permitted.names.push(escape(name).into_owned()),
            GeneralName::IPAddress(bytes) => permitted.networks.extend(network(bytes)),
            _ => {}
        }
    }
    Ok(permitted)
}

/// Address and mask, as RFC 5280 §4.2.1.10 writes a network.
fn network(bytes: &[u8]) -> Option<IpNet> {
    let (address, mask) = bytes.split_at(bytes.len() / 2);
    let ip = |bytes: &[u8]| -> Option<IpAddr> {
        match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
            _ => None,
        }
    };
    IpNet::with_netmask(ip(address)?, ip(mask)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificate::Certificate;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn store() -> (tempfile::TempDir, SecurityStore) {
        let folder = tempfile::tempdir().expect("folder");
        let store =
            SecurityStore::open(&folder.path().join("security.db"), &folder.path().join("keys/k")).expect("opens");
        (folder, store)
    }

    fn machine() -> Machine {
        let mut machine = Machine::loopback_only().with_names(["box".into(), "203.0.113.7".into()]);
        machine.networks.insert("2001:db8:1:2::5/64".parse().expect("network"));
        machine
    }

    #[tokio::test]
    async fn a_root_is_kept_and_limited_to_the_machine_and_private_networks() {
        let (_folder, store) = store();
        assert!(Authority::load(&store, NOW).await.expect("reads").is_none());
        let made = Authority::make(&store, &machine(), &[], NOW).await.expect("makes");
        let again = Authority::load(&store, NOW).await.expect("reads").expect("is there");
        assert_eq!(made.view, again.view);
        assert_eq!(made.permitted, permitted_for(&machine(), &[]), "what was written is read back");
        let years = made.view.not_after.since(NOW).as_secs() / (365 * 86_400);
        assert_eq!(years, 10);
        let (allowed, refused) = made.allowed(
            [
                "box",
                "a.box",
                "localhost",
                "127.0.0.9",
                "203.0.113.7",
                "192.168.7.7",
                "2001:db8:1:2::77",
                "evil.example",
                "203.0.113.8",
                "8.8.8.8",
            ]
            .map(str::to_owned)
            .to_vec(),
        );
        assert_eq!(refused, ["evil.example", "203.0.113.8", "8.8.8.8"]);
        assert_eq!(allowed.len(), 7);
    }

    #[tokio::test]
    async fn chosen_networks_take_the_place_of_the_private_ones() {
        let (_folder, store) = store();
        let chosen = ["192.168.7.0/24".parse().expect("network")];
        let made = Authority::make(&store, &machine(), &chosen, NOW).await.expect("makes");
        let (allowed, _) = made.allowed(vec!["192.168.7.1".into(), "192.168.8.1".into(), "10.0.0.1".into()]);
        assert_eq!(allowed, ["192.168.7.1"]);
    }

    #[tokio::test]
    async fn a_leaf_lives_90_days_and_is_for_what_is_allowed() {
        let (_folder, store) = store();
        let authority = Authority::make(&store, &machine(), &[], NOW).await.expect("makes");
        let leaf = authority.issue(vec!["box".into(), "evil.example".into(), "10.0.0.1".into()], NOW).expect("issues");
        assert_eq!(leaf.refused, ["evil.example"]);
        let read = Certificate::from_pem(leaf.issued.chain.as_bytes(), leaf.issued.key.expose().as_bytes(), NOW)
            .expect("fits");
        assert_eq!(read.view.names, ["box", "10.0.0.1"]);
        assert_eq!(read.view.not_after.since(NOW).as_secs(), 90 * 86_400);
        assert_eq!(read.view.issuer, authority.view.subject);
        assert!(matches!(authority.issue(vec!["evil.example".into()], NOW), Err(TlsError::NothingAllowed)));
    }

    #[tokio::test]
    async fn a_wrong_clock_and_an_expired_root_are_told() {
        let (_folder, store) = store();
        Authority::make(&store, &machine(), &[], NOW).await.expect("makes");
        let early = Authority::load(&store, UnixMillis(0)).await.expect_err("1970");
        assert!(early.to_string().contains("clock says 1970"), "{early}");
        let late = Authority::load(&store, NOW.plus(std::time::Duration::from_hours(24 * 3_700))).await;
        assert!(late.expect_err("expired").to_string().contains("expired on"));
    }
}
