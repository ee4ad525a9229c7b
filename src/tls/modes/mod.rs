//! The modes, one file each. Adding one adds a file and its line in [`MODES`].

mod certificate_files;
mod dev_selfsigned;
mod https_acme;
mod local_http;
mod packaged_ca;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::error::TlsError;
use super::supply::{Supplied, Supply, Wanted};
use crate::types::listener::ListenerConfig;

/// Every mode, the default first.
pub static MODES: &[&Mode] =
    &[&local_http::MODE, &dev_selfsigned::MODE, &packaged_ca::MODE, &https_acme::MODE, &certificate_files::MODE];

/// One way to reach the proxy.
#[derive(Debug)]
pub struct Mode {
    /// As it is written in settings and on the command line.
    pub name: &'static str,
    /// What it does, for people.
    pub title: &'static str,
    /// Whether keys and prompts can be read on the way.
    pub privacy: Privacy,
    /// Where it listens when nobody says otherwise.
    pub usual: Usual,
    /// Gives a listener the certificate to serve now: the one that there is while it is good, else a new one. Asked
    /// at start, when a renewal is due and whenever the machine's addresses may have changed.
    pub certify: Option<Certify>,
}

/// See [`Mode::certify`]. Dropping the future ends it; what it put into the world is taken away then.
pub type Certify = fn(Arc<Supply>, Wanted) -> BoxFuture<'static, Result<Supplied, TlsError>>;

/// Where a mode listens when nobody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usual {
    /// On loopback, port [`ListenerConfig::DEFAULT_PORT`] and the one after it (SPEC §4.8).
    Home,
    /// On every address, ports 80 and 443: where the world looks for a web server (SPEC §6).
    World,
}

impl Usual {
    /// The address.
    #[must_use]
    pub fn bind(self) -> IpAddr {
        match self {
            Self::Home => ListenerConfig::default().bind,
            Self::World => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// The port for plain HTTP.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Home => ListenerConfig::DEFAULT_PORT,
            Self::World => 80,
        }
    }

    /// The port for TLS beside that one; `None` when there is none after it.
    #[must_use]
    pub fn https_port(self, port: u16) -> Option<u16> {
        match (self, port) {
            // A free port beside a free port.
            (_, 0) => Some(0),
            (Self::World, 80) => Some(443),
            (_, port) => port.checked_add(1),
        }
    }
}

/// Whether keys and prompts can be read on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// Encrypted.
    Encrypted,
    /// In clear: only for loopback, or knowingly.
    Clear,
}

/// The mode of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Mode> {
    MODES.iter().copied().find(|mode| mode.name == name)
}

impl Mode {
    /// Whether the mode may be used on an address without the operator accepting a risk (SPEC §6).
    #[must_use]
    pub fn suits(&self, bind: IpAddr) -> bool {
        self.privacy == Privacy::Encrypted || bind.is_loopback()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::listener::TlsMode;

    #[test]
    fn clear_modes_suit_loopback_only() {
        for mode in MODES {
            assert!(find(mode.name).is_some_and(|found| found.name == mode.name));
            assert!(mode.suits("127.0.0.1".parse().expect("address")));
            assert!(mode.suits("::1".parse().expect("address")));
            let open = mode.suits("0.0.0.0".parse().expect("address"));
            assert_eq!(open, mode.privacy == Privacy::Encrypted, "{}", mode.name);
            assert_eq!(mode.certify.is_some(), mode.privacy == Privacy::Encrypted, "{}", mode.name);
        }
        assert!(find("packaged").is_none());
    }

    #[test]
    fn only_https_acme_listens_to_the_world_on_the_ports_of_the_web() {
        for mode in MODES {
            let usual = (mode.usual.bind().to_string(), mode.usual.port(), mode.usual.https_port(mode.usual.port()));
            let expected = if mode.name == TlsMode::HTTPS_ACME {
                ("0.0.0.0".to_owned(), 80, Some(443))
            } else {
                ("127.0.0.1".to_owned(), 8484, Some(8485))
            };
            assert_eq!(usual, expected, "{}", mode.name);
        }
        assert_eq!(Usual::World.https_port(8080), Some(8081), "behind a router that forwards");
        assert_eq!((Usual::World.https_port(0), Usual::Home.https_port(u16::MAX)), (Some(0), None));
    }
}
