//! Client addresses and the lists that hold them (SPEC §5.2, §5.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::failure::{ErrorCode, Failure, Outcome};
use super::text::escape;

/// Azure's host agent, which answers on a public address (Azure documentation, "What is IP address 168.63.129.16").
const AZURE_AGENT: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

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

/// The address that a network is, when it is one.
#[must_use]
pub fn single(network: IpNet) -> Option<IpAddr> {
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

/// A network as people write it: a single address without its /32 or /128.
#[must_use]
pub fn short(network: IpNet) -> String {
    single(network).map_or_else(|| network.to_string(), |address| address.to_string())
}

/// Whether an address is of the operator's own networks, or this machine: private (RFC 1918, RFC 4193), shared by a provider
/// or an overlay network (RFC 6598), link-local, loopback, or unspecified, which connects to this machine (ip(7)).
///
/// Not the opposite of [`is_public`]: documentation, multicast and reserved addresses are neither.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && second & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

/// Whether an address belongs to the public internet (IANA's special-purpose registries for IPv4 and IPv6). What is not known to be
/// public is not.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match canonical(address) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let special = match first {
        // This network, private use, loopback, multicast, reserved, broadcast.
        0 | 10 | 127 | 224.. => true,
        // Shared between a provider and its customers (RFC 6598); some clouds put their metadata there.
        100 => second & 0xc0 == 64,
        // Link-local, which has most clouds' metadata (RFC 3927).
        169 => second == 254,
        172 => second & 0xf0 == 16,
        // Protocol assignments, documentation, 6to4 relays, private use.
        192 => matches!((second, third), (0, 0 | 2) | (88, 99) | (168, _)),
        // Benchmarks (RFC 2544), documentation.
        198 => matches!(second, 18 | 19) || (second, third) == (51, 100),
        203 => (second, third) == (0, 113),
        _ => false,
    };
    !special && address != AZURE_AGENT
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, third, ..] = address.segments();
    // Global unicast is 2000::/3 alone: that leaves out loopback, unspecified, mapped and compatible IPv4, NAT64 (64:ff9b::/96),
    // unique local, link-local, site-local and multicast.
    let global = first & 0xe000 == 0x2000;
    let special = match first {
        // Protocol assignments with Teredo and benchmarks (2001::/23), documentation.
        0x2001 => second < 0x200 || second == 0xdb8,
        // 6to4 wraps any IPv4 address.
        0x2002 => true,
        // Documentation (RFC 9637): 3fff::/20.
        0x3fff => second & 0xf000 == 0,
        // Direct delegation for AS112, which answers for private names.
        0x2620 => (second, third) == (0x4f, 0x8000),
        _ => false,
    };
    global && !special
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

/// A [`BlockEntry`] whose reason lies elsewhere: a long list has few reasons.
#[derive(Debug, Clone, Copy)]
pub struct BlockRow<'a> {
    /// The blocked address or block.
    pub network: IpNet,
    /// Why, for people.
    pub reason: &'a str,
    /// Who put it there.
    pub source: BlockSource,
    /// Failures counted when it was put there.
    pub failures: u32,
    /// When it was put there.
    pub created: UnixMillis,
    /// When it lifts by itself; `None` is until lifted by hand.
    pub expires: Option<UnixMillis>,
}

impl BlockEntry {
    /// The same with its reason lent.
    #[must_use]
    pub fn row(&self) -> BlockRow<'_> {
        let Self { network, ref reason, source, failures, created, expires } = *self;
        BlockRow { network, reason, source, failures, created, expires }
    }
}

impl BlockRow<'_> {
    /// The same with a reason of its own.
    #[must_use]
    pub fn entry(&self) -> BlockEntry {
        let Self { network, reason, source, failures, created, expires } = *self;
        BlockEntry { network, reason: reason.to_owned(), source, failures, created, expires }
    }
}

/// The block list as a text: one network a line, the reason behind `#`. How long a block still holds is not in it.
#[must_use]
pub fn write_blocks(entries: &[BlockEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&entry.network.to_string());
        if !entry.reason.is_empty() {
            text.push_str("  # ");
            text.push_str(&escape(&entry.reason));
        }
        text.push('\n');
    }
    text
}

/// The networks of such a text, or of a list that others publish (some write `;` for `#`), each with its reason.
///
/// # Errors
/// `INVALID_ARGUMENT` with the first line that holds no network, and for a text without any.
pub fn parse_blocks(text: &str) -> Outcome<Vec<(IpNet, String)>> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (network, reason) = line.split_once(['#', ';']).unwrap_or((line, ""));
        let network = network.trim();
        if network.is_empty() {
            continue;
        }
        let network = parse_network(network).map_err(|error| {
            Failure::new(ErrorCode::InvalidArgument, format!("line {number}: {error}"))
                .hint("write one address or CIDR block in a line, and what is no network behind #")
        })?;
        found.push((network, reason.trim().to_owned()));
    }
    if found.is_empty() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "there is no network in the file"));
    }
    Ok(found)
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

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn own_networks_are_private_and_nothing_else_is() {
        for address in [
            "192.168.0.1",
            "10.9.9.9",
            "172.16.0.1",
            "172.31.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.1.1",
            "127.0.0.1",
            "0.0.0.0",
            "::",
            "::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_private(ip(address)) && !is_public(ip(address)), "{address}");
        }
        for address in [
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "169.253.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "168.63.129.16",
            "2001:4860::1",
            "2001:db8::1",
            "::ffff:8.8.8.8",
            "64:ff9b::a00:1",
            "ff02::1",
        ] {
            assert!(!is_private(ip(address)), "{address}");
        }
    }

    #[test]
    fn what_is_not_public_is_known() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip(address)), "{address}");
        }
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.254",
            "169.253.1.1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
            "2001:4860:4860::8888",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(ip(address)), "{address}");
        }
    }

    #[test]
    fn networks_lose_their_host_bits() {
        assert_eq!(parse_network("10.1.2.3/8").expect("parses").to_string(), "10.0.0.0/8");
        assert_eq!(parse_network(" ::1 ").expect("parses").to_string(), "::1/128");
        assert!(parse_network("10.0.0.0/33").is_err());
    }

    #[test]
    fn what_was_exported_is_imported_again_and_a_wrong_line_is_named() {
        let entry = |network: &str, reason: &str| BlockEntry {
            network: parse_network(network).expect("parses"),
            reason: reason.to_owned(),
            source: BlockSource::Manual,
            failures: 0,
            created: UnixMillis(0),
            expires: None,
        };
        let entries =
            [entry("203.0.113.7", "5 wrong keys"), entry("2001:db8::/32", ""), entry("198.51.100.0/24", "a\nb")];
        let text = write_blocks(&entries);
        let back = parse_blocks(&text).expect("reads");
        let wanted: Vec<_> = entries.iter().map(|entry| (entry.network, escape(&entry.reason).into_owned())).collect();
        assert_eq!(back, wanted);
        let published = parse_blocks("203.0.113.0/24 ; SBL1\n; the end\n").expect("reads");
        assert_eq!(published[0].1, "SBL1");
        assert_eq!(parse_blocks("# a list\n\n10.0.0.1 # x # y\n").expect("reads").len(), 1);
        let failure = parse_blocks("10.0.0.1\nnowhere\n").expect_err("a wrong line");
        assert!(failure.message.starts_with("line 2: "), "{}", failure.message);
        assert!(parse_blocks("# nothing\n").is_err());
    }
}
