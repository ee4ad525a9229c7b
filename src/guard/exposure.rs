//! Whether the endpoint is reached from this machine only: then keys and limits guard alone (SPEC §5, head).
//!
//! With `auto` it counts as local only while every listener is on loopback, no trusted proxy is set, and nothing that
//! somebody else sent has been seen: tunnels and reverse proxies make everyone look local. Once public, it stays so
//! until the process ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use crate::types::listener::Exposure;

/// The setting `guard.exposure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExposureSetting {
    /// By what is seen.
    Auto,
    /// Keys and limits guard alone.
    Local,
    /// Everything guards.
    Public,
}

/// Why an endpoint that counted as local does so no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// A request with a forwarding header.
    ForwardingHeader,
    /// A request for a host that is not this machine.
    ForeignHost,
}

/// What is known.
#[derive(Debug, Default)]
pub struct ExposureState {
    setting: AtomicU8,
    /// Listeners that are not on loopback.
    beyond_loopback: AtomicU32,
    trusted_proxies: AtomicBool,
    seen: AtomicBool,
}

const AUTO: u8 = 0;
const LOCAL: u8 = 1;
const PUBLIC: u8 = 2;

impl ExposureState {
    /// What holds now.
    pub fn now(&self) -> Exposure {
        let public = match self.setting.load(Ordering::Relaxed) {
            LOCAL => false,
            PUBLIC => true,
            _ => {
                self.beyond_loopback.load(Ordering::Relaxed) > 0
                    || self.trusted_proxies.load(Ordering::Relaxed)
                    || self.seen.load(Ordering::Relaxed)
            }
        };
        if public { Exposure::Public } else { Exposure::Local }
    }

    /// Sets what the operator wants.
    pub fn set(&self, setting: ExposureSetting, has_trusted_proxies: bool) {
        let number = match setting {
            ExposureSetting::Auto => AUTO,
            ExposureSetting::Local => LOCAL,
            ExposureSetting::Public => PUBLIC,
        };
        self.setting.store(number, Ordering::Relaxed);
        self.trusted_proxies.store(has_trusted_proxies, Ordering::Relaxed);
    }

    /// Notes a sign that somebody else reaches the endpoint; answers whether that made it public just now.
    pub fn notice(&self) -> bool {
        if self.setting.load(Ordering::Relaxed) != AUTO || self.seen.load(Ordering::Relaxed) {
            return false;
        }
        let before = self.now();
        !self.seen.swap(true, Ordering::Relaxed) && before == Exposure::Local
    }

    /// Counts a listener until dropped.
    #[must_use]
    pub fn listening(self: &Arc<Self>, bind: IpAddr) -> Listening {
        let beyond = !bind.is_loopback();
        if beyond {
            self.beyond_loopback.fetch_add(1, Ordering::Relaxed);
        }
        Listening { state: self.clone(), beyond }
    }
}

/// Counts a listener until dropped.
#[derive(Debug)]
pub struct Listening {
    state: Arc<ExposureState>,
    beyond: bool,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.beyond {
            self.state.beyond_loopback.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn auto_is_local_only_while_nothing_speaks_against_it() {
        let state = Arc::new(ExposureState::default());
        let loopback = state.listening(address("127.0.0.1"));
        assert_eq!(state.now(), Exposure::Local);
        let wide = state.listening(address("0.0.0.0"));
        assert_eq!(state.now(), Exposure::Public);
        drop(wide);
        assert_eq!(state.now(), Exposure::Local);
        state.set(ExposureSetting::Auto, true);
        assert_eq!(state.now(), Exposure::Public);
        state.set(ExposureSetting::Auto, false);
        assert_eq!(state.now(), Exposure::Local);
        assert!(state.notice(), "the first sign is told");
        assert!(!state.notice(), "and only the first");
        assert_eq!(state.now(), Exposure::Public);
        drop(loopback);
        assert_eq!(state.now(), Exposure::Public, "what was seen stays seen");
    }

    #[test]
    fn what_the_operator_says_holds() {
        let state = Arc::new(ExposureState::default());
        state.set(ExposureSetting::Local, true);
        let wide = state.listening(address("::"));
        assert!(!state.notice());
        assert_eq!(state.now(), Exposure::Local);
        drop(wide);
        state.set(ExposureSetting::Public, false);
        assert_eq!(state.now(), Exposure::Public);
    }

    #[test]
    fn a_sign_at_a_public_endpoint_is_no_news_and_is_remembered() {
        let state = Arc::new(ExposureState::default());
        let wide = state.listening(address("0.0.0.0"));
        assert!(!state.notice());
        drop(wide);
        assert_eq!(state.now(), Exposure::Public);
    }
}
