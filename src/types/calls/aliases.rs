//! Operations on aliases (SPEC §2 `flm aliases`, §3.5).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::alias::{AliasOrder, AliasView};

/// Lists aliases by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListAliases {}
call!(ListAliases, "aliases/list", Reads, Vec<AliasView>);

/// Sets an alias in place of the one of that name; in force for the next request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetAlias {
    /// The name that clients use.
    pub name: Arc<str>,
    /// 1 to 16 names as a request could write them; models that no engine has now are fine.
    pub targets: Vec<Arc<str>>,
    /// Which is tried first.
    pub order: AliasOrder,
}
call!(SetAlias, "aliases/set", Changes, AliasView);

/// Removes an alias.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveAlias {
    /// Its name.
    pub name: Arc<str>,
}
call!(RemoveAlias, "aliases/remove", Destroys, AliasView);
