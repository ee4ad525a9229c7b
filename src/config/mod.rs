//! Settings, paths and files: the settings table, `flm.toml`, precedence, the folders of a home, and the
//! `std::fs` wrapper that names paths and makes private files.
//!
//! Called by every room above `types`. Must never open a database.

#[cfg(test)]
mod file_tests;
pub mod files;
pub mod kinds;
pub mod paths;
pub mod settings;
pub mod table;
