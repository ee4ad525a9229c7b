//! Everything that dials out: the egress decision, connectors and the pooled HTTP client.
//!
//! Called by `engines` and `proxy` (through a [`pool::Pool`] per worker), `tls` and `audit`. Must never be
//! bypassed: no other room opens an outgoing connection (SPEC §7).

pub mod connect;
mod connection;
mod decoder;
pub mod dns;
pub mod egress;
mod exchange;
pub mod hostile;
pub mod media_fetch;
pub mod message;
pub mod pool;
pub mod post;
pub mod socket;
pub mod socks5;
pub mod upstream;
pub mod web;
pub mod web_address;

#[cfg(test)]
mod tests;
