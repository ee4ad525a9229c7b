//! Operations on models (SPEC §2 `flm models`).

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::engine::ModelView;
use crate::types::ids::EngineId;

/// Lists all models of all engines, or of one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListModels {
    /// Which engine; `None` is all.
    pub engine: Option<EngineId>,
}
call!(ListModels, "models/list", Reads, Vec<ModelView>);

/// Asks the engines for their models now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RefreshModels {}
call!(RefreshModels, "models/refresh", Changes, Vec<ModelView>);
