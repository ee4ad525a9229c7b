//! Requests per address, in bounded memory: IPv6 counts per /64 (SPEC §5.3, §5.7).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;

use super::GuardPolicy;
use super::gcra::{Gcra, Rate, RateDecision};
use crate::types::address::counting_prefix;

/// Addresses that are remembered; the least used are forgotten first. SECURITY.md §F measured 7.8 MiB for them.
const REMEMBERED: usize = 65_536;

/// One limiter per address.
pub struct AddressRates {
    policy: ArcSwap<GuardPolicy>,
    limiters: Cache<IpAddr, Arc<Gcra>>,
    /// The first request's time: GCRA counts from here.
    origin: std::sync::OnceLock<Instant>,
}

impl AddressRates {
    /// No address has been seen.
    #[must_use]
    pub fn new(policy: GuardPolicy) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            limiters: Cache::new(REMEMBERED),
            origin: std::sync::OnceLock::new(),
        }
    }

    /// Swaps the thresholds.
    pub fn set_policy(&self, policy: GuardPolicy) {
        self.policy.store(Arc::new(policy));
    }

    /// Counts one request.
    pub fn take(&self, address: IpAddr, now: Instant) -> RateDecision {
        let policy = **self.policy.load();
        if policy.address_requests_per_minute == 0 {
            return RateDecision::Unlimited;
        }
        let rate = Rate { per_minute: policy.address_requests_per_minute, burst: policy.address_burst };
        let origin = *self.origin.get_or_init(|| now);
        let prefix = counting_prefix(address);
        let limiter = self.limiters.get(&prefix).unwrap_or_else(|| {
            let fresh = Arc::new(Gcra::default());
            self.limiters.insert(prefix, fresh.clone());
            fresh
        });
        limiter.take(rate, origin, now)
    }
}

impl std::fmt::Debug for AddressRates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressRates").field("remembered", &self.limiters.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::{Clock, UnixMillis};

    #[test]
    fn addresses_of_one_slash_64_share_a_limit_and_others_do_not() {
        let rates = AddressRates::new(GuardPolicy { address_requests_per_minute: 60, address_burst: 2 });
        let now = Clock::stepped(UnixMillis(0)).monotonic();
        let take = |text: &str| rates.take(text.parse().expect("address"), now);
        assert!(matches!(take("2001:db8::1"), RateDecision::Allowed { .. }));
        assert!(matches!(take("2001:db8::2"), RateDecision::Allowed { .. }));
        assert!(matches!(take("2001:db8::3"), RateDecision::Limited { .. }));
        assert!(matches!(take("2001:db8:0:1::1"), RateDecision::Allowed { .. }));
        assert!(matches!(take("192.0.2.1"), RateDecision::Allowed { .. }));
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_addresses() {
        let rates = AddressRates::new(GuardPolicy::default());
        let now = Clock::stepped(UnixMillis(0)).monotonic();
        for n in 0..200_000_u32 {
            rates.take(IpAddr::V4(n.into()), now);
        }
        assert!(rates.limiters.len() <= REMEMBERED);
    }
}
