//! Whose request is it? The peer's own address, unless the peer is a proxy that the operator trusts (SPEC §5, head).
//!
//! A header that somebody else sent is never believed: with a trusted peer the addresses are walked from the right, and
//! the first that is no trusted proxy is the client (RFC 7239 §7.4: what is left of it is only said by the client).

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use crate::types::address::canonical;

/// Headers by which something in between says that it forwards for somebody.
const FORWARDING_HEADERS: [&str; 7] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "cf-connecting-ip", "true-client-ip", "via"];

/// Addresses of one chain that are looked at: no honest chain is longer.
const LONGEST_CHAIN: usize = 32;

/// Where a trusted proxy tells the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// Nowhere: the PROXY protocol alone tells it.
    None,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Real-IP`.
    XRealIp,
    /// `CF-Connecting-IP`.
    CfConnectingIp,
}

/// Whether trusted proxies begin a connection with the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    Off,
    /// They do, always: a connection without it is closed.
    Required,
}

/// Proxies that may tell the client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Their networks; empty trusts nobody.
    pub networks: Vec<IpNet>,
    /// Where they tell it.
    pub header: ForwardingHeader,
    /// Whether they speak the PROXY protocol.
    pub protocol: ProxyProtocol,
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self { networks: Vec::new(), header: ForwardingHeader::XForwardedFor, protocol: ProxyProtocol::Off }
    }
}

impl TrustedProxies {
    /// Whether this peer may tell the client's address.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = canonical(peer);
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// The client of a request that `peer` sent.
    #[must_use]
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.networks.is_empty() || !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        for told in self.chain(headers).take(LONGEST_CHAIN) {
            // What cannot be read was said by whoever comes next: the last one that could be read counts.
            let Some(address) = told else { return client };
            client = address;
            if !self.trusts(address) {
                return client;
            }
        }
        client
    }

    /// The addresses that the header names, the nearest first; `None` for one that cannot be read.
    fn chain<'a>(&self, headers: &'a HeaderMap) -> Box<dyn Iterator<Item = Option<IpAddr>> + 'a> {
        match self.header {
            ForwardingHeader::None => Box::new(std::iter::empty()),
            ForwardingHeader::XForwardedFor => Box::new(items(headers, "x-forwarded-for").map(node)),
            ForwardingHeader::Forwarded => Box::new(items(headers, "forwarded").map(|element| {
                element.split(';').find_map(|pair| {
                    let (name, value) = pair.trim().split_once('=')?;
                    name.eq_ignore_ascii_case("for").then(|| node(value.trim_matches('"')))?
                })
            })),
            ForwardingHeader::XRealIp => Box::new(items(headers, "x-real-ip").map(node)),
            ForwardingHeader::CfConnectingIp => Box::new(items(headers, "cf-connecting-ip").map(node)),
        }
    }
}

/// Elements of a list header, the last first (RFC 9110 §5.3: several lines are one list).
fn items<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> + 'a {
    let mut values: Vec<_> = headers.get_all(name).iter().collect();
    values.reverse();
    values.into_iter().flat_map(|value| value.to_str().unwrap_or("?").rsplit(',')).map(str::trim)
}

/// An address with or without port and brackets (RFC 7239 §6).
fn node(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>())
        .ok()?;
    Some(canonical(address))
}

/// Whether something in between says that it forwards for somebody: then loopback means nothing (SPEC §5, head).
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    // One walk over the few names that a request has is cheaper than looking each of these up.
    headers.keys().any(|name| FORWARDING_HEADERS.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &[&str], header: ForwardingHeader) -> TrustedProxies {
        let networks = networks.iter().map(|text| text.parse().expect("network")).collect();
        TrustedProxies { networks, header, protocol: ProxyProtocol::Off }
    }

    fn client(proxies: &TrustedProxies, peer: &str, pairs: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("value"));
        }
        proxies.client(peer.parse().expect("address"), &headers).to_string()
    }

    #[test]
    fn without_trusted_proxies_the_peer_is_the_client_whatever_it_says() {
        let told =
            [("x-forwarded-for", "198.51.100.7"), ("forwarded", "for=198.51.100.7"), ("x-real-ip", "198.51.100.7")];
        assert_eq!(client(&TrustedProxies::default(), "203.0.113.1", &told), "203.0.113.1");
        let other = proxies(&["10.0.0.0/8"], ForwardingHeader::XForwardedFor);
        assert_eq!(client(&other, "203.0.113.1", &told), "203.0.113.1");
    }

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        let chain = proxies(&["10.0.0.0/8", "192.0.2.1/32"], ForwardingHeader::XForwardedFor);
        for (told, expected) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["1.2.3.4, 198.51.100.7"], "198.51.100.7"),
            (&["1.2.3.4, 198.51.100.7, 10.9.9.9"], "198.51.100.7"),
            (&["1.2.3.4", "198.51.100.7, 192.0.2.1"], "198.51.100.7"),
            (&["198.51.100.7:4711"], "198.51.100.7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            (&["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            (&["unknown"], "10.0.0.1"),
            (&["1.2.3.4, nonsense, 10.3.3.3"], "10.3.3.3"),
            (&[""], "10.0.0.1"),
        ] {
            let pairs: Vec<_> = told.iter().map(|value| ("x-forwarded-for", *value)).collect();
            assert_eq!(client(&chain, "10.0.0.1", &pairs), expected, "{told:?}");
        }
        assert_eq!(client(&chain, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn only_the_chosen_header_is_read() {
        let told = [
            ("x-forwarded-for", "198.51.100.1"),
            ("forwarded", "for=198.51.100.2;proto=https, For=\"[2001:db8::3]:80\";by=x"),
            ("x-real-ip", "198.51.100.4"),
            ("cf-connecting-ip", "198.51.100.5"),
        ];
        for (header, expected) in [
            (ForwardingHeader::XForwardedFor, "198.51.100.1"),
            (ForwardingHeader::Forwarded, "2001:db8::3"),
            (ForwardingHeader::XRealIp, "198.51.100.4"),
            (ForwardingHeader::CfConnectingIp, "198.51.100.5"),
            (ForwardingHeader::None, "10.0.0.1"),
        ] {
            assert_eq!(client(&proxies(&["10.0.0.0/8"], header), "10.0.0.1", &told), expected, "{header:?}");
        }
        let hidden = [("forwarded", "for=_hidden;proto=http")];
        let proxies = proxies(&["10.0.0.0/8"], ForwardingHeader::Forwarded);
        assert_eq!(client(&proxies, "10.0.0.1", &hidden), "10.0.0.1");
    }
}
