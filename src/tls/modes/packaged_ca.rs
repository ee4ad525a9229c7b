//! `packaged-ca`: a certificate of the home's own authority. Whoever trusts its root has nothing more to do, whatever
//! the listener's certificate becomes.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Mode, Privacy, Usual};
use crate::config::table;
use crate::tls::authority::{Authority, SERVER, SERVER_BY_NAME};
use crate::tls::certificate::Certificate;
use crate::tls::error::TlsError;
use crate::tls::supply::{Supplied, Supply, Wanted};
use crate::types::address::parse_network;
use crate::types::certificate::Occasion;
use crate::types::listener::TlsMode;

/// The home's own authority.
pub(super) static MODE: Mode = Mode {
    name: TlsMode::PACKAGED_CA,
    title: "TLS with a certificate of this home's own authority",
    privacy: Privacy::Encrypted,
    usual: Usual::Home,
    certify: Some(certify),
};

#[expect(clippy::needless_pass_by_value, reason = "the shape of `Certify`")]
fn certify(supply: Arc<Supply>, wanted: Wanted) -> BoxFuture<'static, Result<Supplied, TlsError>> {
    Box::pin(async move {
        let machine = supply.names().await?;
        let now = supply.clock.wall();
        let authority = if let Some(authority) = Authority::load(&supply.store, now).await? {
            authority
        } else {
            // The setting's rule has let networks through only.
            let networks = (supply.settings)().get(table::TLS_CA_NETWORKS);
            let networks: Vec<_> = networks.iter().filter_map(|text| parse_network(text).ok()).collect();
            Authority::make(&supply.store, &machine, &networks, now).await?
        };
        let (names, refused) = authority.allowed(machine.subjects());
        // BoringSSL, and with it Bun, cannot check a root's limits on addresses, and refuses a leaf that names one
        // (UNSUPPORTED_CONSTRAINT_TYPE): whoever calls a name gets a leaf for names alone.
        let only_names: Vec<String> = names.iter().filter(|name| name.parse::<IpAddr>().is_err()).cloned().collect();
        let certificate = leaf(&supply, &authority, wanted.occasion, SERVER, names).await?;
        let mut renewal = certificate.renewal();
        let certificate = if only_names.is_empty() {
            certificate
        } else {
            let by_name = leaf(&supply, &authority, wanted.occasion, SERVER_BY_NAME, only_names).await?;
            renewal = renewal.min(by_name.renewal());
            certificate.with_by_name(&by_name)
        };
        let next_renewal = Some(renewal);
        let warning = (!refused.is_empty()).then(|| {
            format!(
                "the certificate authority may not vouch for {}: clients that call these are refused by their own check; \
                 'flm security ca init --replace' makes one that may",
                refused.join(", ")
            )
        });
        Ok(Supplied { warning, ..Supplied::good(certificate, next_renewal) })
    })
}

/// The leaf that is kept there, or a new one when it is not for all of these names, or another was asked for.
async fn leaf(
    supply: &Supply,
    authority: &Authority,
    occasion: Occasion,
    place: &str,
    names: Vec<String>,
) -> Result<Certificate, TlsError> {
    let now = supply.clock.wall();
    match supply.kept(place, &names, now).await? {
        Some(kept) if occasion != Occasion::Asked => Ok(kept),
        _ => supply.keep(place, authority.issue(names, now)?.issued, now).await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::config::settings::Settings;
    use crate::net::egress::Egress;
    use crate::storage::SecurityStore;
    use crate::telemetry::tasks::Tasks;
    use crate::tls::machine::Machine;
    use crate::tls::supply::Progress;
    use crate::types::clock::{Clock, UnixMillis};
    use crate::types::listener::ListenerConfig;

    const DAY: Duration = Duration::from_hours(24);

    /// A machine whose addresses and clock are the test's.
    struct Stage {
        supply: Arc<Supply>,
        machine: Arc<Mutex<Machine>>,
        clock: Clock,
        folder: tempfile::TempDir,
    }

    impl Stage {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let machine = Machine::loopback_only().with_names(["box".into(), "192.168.1.20".into()]);
            let (machine, clock) = (Arc::new(Mutex::new(machine)), Clock::stepped(UnixMillis(1_790_000_000_000)));
            let supply = supply(&folder, &machine, &clock);
            Self { supply, machine, clock, folder }
        }

        /// The same home, opened again.
        fn started_again(self) -> Self {
            let Self { supply: before, machine, clock, folder } = self;
            drop(before);
            Self { supply: supply(&folder, &machine, &clock), machine, clock, folder }
        }

        /// The machine joins another network.
        fn addressed(&self, address: &str) {
            let names = ["box".to_owned(), address.to_owned()];
            *self.machine.lock().expect("not poisoned") = Machine::loopback_only().with_names(names);
        }

        async fn given(&self, occasion: Occasion) -> Supplied {
            let wanted = Wanted { listener: ListenerConfig::default(), occasion, progress: Progress::unheard() };
            certify(self.supply.clone(), wanted).await.expect("a certificate")
        }
    }

    fn supply(folder: &tempfile::TempDir, machine: &Arc<Mutex<Machine>>, clock: &Clock) -> Arc<Supply> {
        let place = |name: &str| folder.path().join(name);
        let machine = machine.clone();
        Arc::new(Supply {
            store: SecurityStore::open(&place("security.db"), &place("keys/security.key")).expect("opens"),
            clock: clock.clone(),
            machine: Box::new(move || machine.lock().expect("not poisoned").clone()),
            settings: Box::new(|| Arc::new(Settings::default())),
            challenges: Arc::default(),
            variable: Box::new(|_| None),
            egress: Egress::direct(),
            cleanups: Tasks::new(),
            ordering: tokio::sync::Mutex::new(()),
        })
    }

    #[tokio::test]
    async fn a_certificate_is_for_all_that_the_machine_is_called_and_is_kept_until_that_changes() {
        let stage = Stage::new();
        let first = stage.given(Occasion::Start).await;
        let names = &first.certificate.view.names;
        for expected in ["localhost", "127.0.0.1", "::1", "box", "192.168.1.20"] {
            assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
        }
        let stage = stage.started_again();
        let kept = stage.given(Occasion::Start).await;
        assert_eq!(kept.certificate.view, first.certificate.view, "over a restart too");

        stage.addressed("10.1.2.3");
        let moved = stage.given(Occasion::Look).await;
        assert!(moved.certificate.view.names.contains(&"10.1.2.3".to_owned()), "{:?}", moved.certificate.view);
        assert_eq!(moved.certificate.view.issuer, first.certificate.view.issuer, "of the same root");
        let asked = stage.given(Occasion::Asked).await;
        assert_ne!(asked.certificate.view.fingerprint, moved.certificate.view.fingerprint, "asked for another one");
    }

    #[tokio::test]
    async fn a_certificate_is_issued_again_when_thirty_days_remain_and_not_before() {
        let stage = Stage::new();
        let first = stage.given(Occasion::Start).await;
        assert_eq!(first.next_renewal, Some(first.certificate.view.not_after.minus(DAY * 30)));
        stage.clock.advance(DAY * 59);
        let kept = stage.given(Occasion::Look).await;
        assert_eq!(kept.certificate.view, first.certificate.view);
        stage.clock.advance(DAY + Duration::from_mins(1));
        let renewed = stage.given(Occasion::Look).await;
        assert_ne!(renewed.certificate.view.fingerprint, first.certificate.view.fingerprint);
        assert!(renewed.certificate.view.not_after > first.certificate.view.not_after);
    }

    #[tokio::test]
    async fn an_address_that_the_root_may_not_vouch_for_is_told_and_the_others_are_served() {
        let stage = Stage::new();
        stage.given(Occasion::Start).await;
        stage.addressed("203.0.113.7");
        let given = stage.given(Occasion::Look).await;
        assert!(given.warning.is_some_and(|warning| warning.contains("203.0.113.7")));
        assert!(!given.certificate.view.names.contains(&"203.0.113.7".to_owned()));
    }
}
