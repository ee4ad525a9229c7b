//! Client addresses and the lists that hold them (SPEC §5.2, §5.3).

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;

/// Folds an IPv4-mapped IPv6 address (`::ffff:1.2.3.4`) to IPv4, so that one client has one address.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The prefix by which a client is counted: itself for IPv4, its /64 for IPv6 (SPEC §5.3).
#[must_use]
pub fn counting_prefix(address: IpAddr) -> IpAddr {
    match canonical(address) {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
    }
}

/// The address as the host of a URL: IPv6 stands in brackets (RFC 3986 §3.2.2).
#[must_use]
pub fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Parses an address or a CIDR block; a plain address becomes /32 or /128. Host bits are cleared.
///
/// # Errors
/// When the text is neither.
pub fn parse_network(text: &str) -> Result<IpNet, InvalidNetwork> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(canonical(address)));
    }
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| InvalidNetwork(text.chars().take(80).collect()))
}

/// Says that a text is no address and no CIDR block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a CIDR block such as 203.0.113.0/24 or 2001:db8::/32")]
pub struct InvalidNetwork(pub String);

/// Who put a block there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockSource {
    /// The operator, by hand.
    Manual,
    /// The ladder of failed authentications (SPEC §5.3).
    FailedAuthentication,
    /// Scores of the intrusion and anomaly rules (SPEC §5.4 and §5.5).
    Score,
    /// An imported list.
    Import,
}

/// One entry of the block list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct BlockEntry {
    /// The blocked address or block.
    #[schemars(with = "String")]
    pub network: IpNet,
    /// Why, for people.
    pub reason: String,
    /// Who put it there.
    pub source: BlockSource,
    /// Failures counted when it was put there.
    #[serde(default)]
    pub failures: u32,
    /// When it was put there.
    pub created: UnixMillis,
    /// When it lifts by itself; `None` is until lifted by hand.
    #[serde(default)]
    pub expires: Option<UnixMillis>,
}

/// One entry of the allow list or the trusted list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ListedNetwork {
    /// The address or block.
    #[schemars(with = "String")]
    pub network: IpNet,
    /// A note by the operator; may be empty.
    #[serde(default)]
    pub note: String,
    /// When it was added.
    pub created: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_the_ipv4_client() {
        assert_eq!(canonical("::ffff:1.2.3.4".parse().expect("address")).to_string(), "1.2.3.4");
        assert_eq!(counting_prefix("2001:db8::1:2:3:4".parse().expect("address")).to_string(), "2001:db8::");
    }

    #[test]
    fn networks_lose_their_host_bits() {
        assert_eq!(parse_network("10.1.2.3/8").expect("parses").to_string(), "10.0.0.0/8");
        assert_eq!(parse_network(" ::1 ").expect("parses").to_string(), "::1/128");
        assert!(parse_network("10.0.0.0/33").is_err());
    }
}
