//! Certificates from an ACME directory (RFC 8555): accounts, orders, both challenges, renewal.
//!
//! Called by `tls::modes::https_acme`. Everything that it says to the directory or to a DNS provider goes through `net`, so that
//! the egress setting covers it (SPEC §7). What it puts into the world, such as a TXT record, it takes away again on every way
//! out. Must never ask a directory more often than `renewal` allows.

mod account;
mod ari;
mod client;
mod dns_01;
mod dns_acme_dns;
mod dns_cloudflare;
mod dns_exec;
mod dns_rfc2136;
pub mod error;
mod http_01;
mod order;
pub mod plan;
mod provider;
pub(super) mod renewal;
