//! What the operator can do, one file per noun, each function an operation of `types::calls`.
//!
//! Called by `control` (when no owner lives) and `daemon` (for everyone who is attached), both through
//! [`dispatch::dispatch`]. Every change goes the same way: try-build, commit to the store, publish to guard,
//! registry and proxy, audit, tell the live lane; a failure before the commit keeps the old state. Must never
//! know a front end, and its public functions name only `types`, `config` and items of this room.

pub mod addresses;
pub mod alerts;
pub mod aliases;
pub mod audit_log;
pub mod authority;
pub mod backup;
pub mod bench;
pub mod captures;
pub mod catalogue;
pub mod certificates;
pub mod chat;
pub mod check;
pub mod comparisons;
pub mod connect;
pub mod context;
pub mod dispatch;
pub mod doctor;
pub mod egress;
pub mod engines;
pub mod expose;
pub mod firewall;
pub mod keys;
pub mod leak;
pub mod legacy;
pub mod limits;
pub mod loading;
pub mod lock;
pub mod logs;
mod manifest;
pub mod models;
mod own_chat;
mod own_endpoint;
pub mod policy;
pub mod port_holder;
pub mod profiles;
pub mod progress;
pub mod prompts;
pub mod proxy;
pub mod publish;
pub mod rekey;
pub mod reload;
pub mod replay;
pub mod requests;
pub mod restore;
pub mod settings;
#[cfg(test)]
mod shapes;
pub mod unlock;
pub mod usage;
