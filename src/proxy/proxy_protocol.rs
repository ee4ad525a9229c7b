//! The PROXY protocol, versions 1 and 2: a trusted proxy tells the client's address before the first byte of HTTP.
//!
//! Specification: haproxy.org/download/3.0/doc/proxy-protocol.txt. Read byte for byte, so that nothing of what follows
//! is taken. Only asked of peers that the operator trusts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::types::address::canonical;

/// How a version 2 header begins (§2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest line of version 1, with its end (§2.1).
const LONGEST_LINE: usize = 107;
/// Longest rest of version 2 that is read; addresses take 36 bytes, and a few hundred of extensions is what exists.
const LONGEST_REST: usize = 1024;

/// Reads the header; `None` when the proxy speaks for itself (`LOCAL`, `UNKNOWN`).
///
/// # Errors
/// When there is no header, or one that cannot be read: the connection must be closed.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut begin = [0; SIGNATURE.len()];
    stream.read_exact(&mut begin).await?;
    if begin == SIGNATURE { second(stream).await } else { first(stream, &begin).await }
}

async fn second(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if length > LONGEST_REST {
        return Err(malformed("its version 2 header is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (head[0], head[1]) {
        // LOCAL: a health check of the proxy itself.
        (0x20, _) => Ok(None),
        (0x21, family) => match family >> 4 {
            1 => address::<4>(&rest).map(|octets| Some(Ipv4Addr::from(octets).into())),
            2 => address::<16>(&rest).map(|octets| Some(canonical(Ipv6Addr::from(octets).into()))),
            // A Unix socket, or unspecified: nothing to tell.
            _ => Ok(None),
        },
        _ => Err(malformed("its version 2 header has an unknown command")),
    }
}

fn address<const SIZE: usize>(rest: &[u8]) -> io::Result<[u8; SIZE]> {
    rest.first_chunk().copied().ok_or_else(|| malformed("its version 2 header is too short"))
}

async fn first(stream: &mut (impl AsyncRead + Unpin), begin: &[u8]) -> io::Result<Option<IpAddr>> {
    if !begin.starts_with(b"PROXY ") {
        return Err(malformed("it does not begin with the PROXY protocol"));
    }
    let mut line = begin.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(malformed("its version 1 line is too long"));
        }
        // One byte at a time: what comes after the line belongs to HTTP. The system has it in memory already.
        line.push(stream.read_u8().await?);
    }
    let text = std::str::from_utf8(&line).map_err(|_| malformed("its version 1 line is no text"))?;
    let mut words = text.trim_end().split(' ').skip(1);
    match words.next() {
        Some("TCP4" | "TCP6") => {
            let source = words.next().and_then(|word| word.parse().ok());
            source.map(|address| Some(canonical(address))).ok_or_else(|| malformed("its version 1 line has no address"))
        }
        Some("UNKNOWN") => Ok(None),
        _ => Err(malformed("its version 1 line names no known protocol")),
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a trusted proxy's connection was closed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(bytes: &[u8]) -> (io::Result<Option<IpAddr>>, Vec<u8>) {
        let mut rest = bytes;
        let told = read(&mut rest).await;
        (told, rest.to_vec())
    }

    fn version2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest, b"GET /"].concat()
    }

    #[tokio::test]
    async fn the_client_is_told_and_what_follows_is_left() {
        let v6: Ipv6Addr = "2001:db8::7".parse().expect("address");
        for (bytes, expected) in [
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 443\r\nGET /".to_vec(), Some("198.51.100.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\nGET /".to_vec(), Some("2001:db8::7")),
            (b"PROXY TCP6 ::ffff:198.51.100.7 ::1 4711 443\r\nGET /".to_vec(), Some("198.51.100.7")),
            (b"PROXY UNKNOWN\r\nGET /".to_vec(), None),
            (version2(0x21, 0x11, &[198, 51, 100, 7, 10, 0, 0, 1, 18, 103, 1, 187]), Some("198.51.100.7")),
            (version2(0x21, 0x21, &[&v6.octets()[..], &[0; 20]].concat()), Some("2001:db8::7")),
            (version2(0x20, 0, &[]), None),
            (version2(0x21, 0x31, &[0; 216]), None),
        ] {
            let (address, rest) = told(&bytes).await;
            assert_eq!(address.expect("a header").map(|a| a.to_string()).as_deref(), expected, "{bytes:?}");
            assert_eq!(rest, b"GET /");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_an_error() {
        for bytes in [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 nonsense 1 2 3\r\n".to_vec(),
            b"PROXY TCP5 198.51.100.7 10.0.0.1 1 2\r\n".to_vec(),
            format!("PROXY TCP4 {}\r\n", "1".repeat(200)).into_bytes(),
            version2(0x21, 0x11, &[1, 2, 3]),
            version2(0x31, 0x11, &[0; 12]),
            b"PROXY TCP4 198.51.100.7".to_vec(),
            Vec::new(),
        ] {
            assert!(told(&bytes).await.0.is_err(), "{bytes:?}");
        }
    }
}
