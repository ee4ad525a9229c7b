//! Arguments and results of everything the operator can do, one file per noun of `operations`.
//!
//! Command line and console build a value of one of these types and hand it to `control::Operator`; the owner
//! of the home runs it through `operations`. A new operation is one struct here and one function there.

use serde::Serialize;
use serde::de::DeserializeOwned;

pub mod addresses;
pub mod alerts;
pub mod aliases;
pub mod audit;
pub mod authority;
pub mod backup;
pub mod captures;
pub mod certificates;
pub mod chat;
pub mod check;
pub mod comparisons;
pub mod connect;
pub mod doctor;
pub mod engines;
pub mod expose;
pub mod firewall;
pub mod keys;
pub mod legacy;
pub mod logs;
pub mod models;
pub mod policy;
pub mod profiles;
pub mod prompts;
pub mod proxy;
pub mod publish;
pub mod replay;
pub mod requests;
pub mod settings;
pub mod usage;

/// What an operation does to the home; a connection opened read-only may only read (SPEC §9.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Changes nothing.
    Reads,
    /// Changes something that can be changed back.
    Changes,
    /// Removes something for good; the console asks first.
    Destroys,
}

/// What a connection to the owner may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Everything.
    Full,
    /// Look, but change nothing (SPEC §9.7).
    ReadOnly,
}

/// An operation's arguments. The name is its path on the control socket: `POST /admin/<NAME>`.
pub trait Call: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Path on the control socket, such as `engines/list`.
    const NAME: &'static str;
    /// What it does to the home.
    const ACCESS: Access;
    /// What it answers.
    type Output: Serialize + DeserializeOwned + Send + 'static;
}

/// An operation that takes long, tells how far it is, and ends when whoever asked leaves.
pub trait LongCall: Call {
    /// What it tells on its way.
    type Progress: Serialize + DeserializeOwned + Send + 'static;
}

/// Writes [`Call`] for a struct: `call!(Name, "noun/verb", Reads, Output)`.
macro_rules! call {
    ($name:ident, $path:literal, $access:ident, $output:ty) => {
        impl $crate::types::calls::Call for $name {
            const NAME: &'static str = $path;
            const ACCESS: $crate::types::calls::Access = $crate::types::calls::Access::$access;
            type Output = $output;
        }
    };
}
pub(crate) use call;

/// Writes [`LongCall`] for a struct: `long_call!(Name, "noun/verb", Reads, Output, Progress)`.
macro_rules! long_call {
    ($name:ident, $path:literal, $access:ident, $output:ty, $progress:ty) => {
        $crate::types::calls::call!($name, $path, $access, $output);
        impl $crate::types::calls::LongCall for $name {
            type Progress = $progress;
        }
    };
}
pub(crate) use long_call;
