//! Values that two rooms share: ids, units, secrets, error codes, live events, and the arguments and
//! results of every operation. One file per noun.
//!
//! Called by every room. Must never do I/O, read a clock other than through [`clock::Clock`], or know
//! another room.

pub mod acme;
pub mod address;
pub mod alert;
pub mod alias;
pub mod audit;
pub mod bench;
pub mod calendar;
pub mod calls;
pub mod capture;
pub mod certificate;
pub mod chat;
pub mod clock;
pub mod comparison;
pub mod doctor;
pub mod egress;
pub mod engine;
pub mod failure;
pub mod firewall;
pub mod gpu;
pub mod ids;
pub mod key;
pub mod language;
pub mod line_diff;
pub mod listener;
pub mod live;
pub mod order;
pub mod policy;
mod policy_modes;
pub mod profile;
pub mod prompt;
pub mod redact;
pub mod request;
pub mod secret;
pub mod spread;
pub mod text;
pub mod trace;
pub mod usage;
