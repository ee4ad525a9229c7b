//! The modes, one file each. Adding one adds a file and its line in [`MODES`].

mod certificate_files;
mod dev_selfsigned;
mod local_http;
mod packaged_ca;

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::error::TlsError;
use super::supply::{Supplied, Supply};
use crate::types::listener::ListenerConfig;

/// Every mode, the default first.
pub static MODES: &[&Mode] = &[&local_http::MODE, &dev_selfsigned::MODE, &packaged_ca::MODE, &certificate_files::MODE];

/// One way to reach the proxy.
#[derive(Debug)]
pub struct Mode {
    /// As it is written in settings and on the command line.
    pub name: &'static str,
    /// What it does, for people.
    pub title: &'static str,
    /// Whether keys and prompts can be read on the way.
    pub privacy: Privacy,
    /// Gives a listener the certificate to serve now: the one that there is while it is good, else a new one. Asked
    /// at start, when a renewal is due and whenever the machine's addresses may have changed.
    pub certify: Option<Certify>,
}

/// See [`Mode::certify`].
pub type Certify = fn(Arc<Supply>, ListenerConfig) -> BoxFuture<'static, Result<Supplied, TlsError>>;

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
}
