//! Operations on models (SPEC §2 `flm models`).

use serde::{Deserialize, Serialize};

use super::{call, long_call};
use crate::types::engine::{ModelView, TransferProgress};
use crate::types::ids::{CanonicalModel, EngineId};

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

/// Shows what is known of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowModel {
    /// `flm://ENGINE_ID/MODEL`, the name as listed, or `ENGINE_ID/MODEL`.
    pub model: String,
}
call!(ShowModel, "models/show", Reads, Vec<ModelView>);

/// Brings a model into its engine's memory. Leaving it leaves the rest to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadModel {
    /// As in [`ShowModel`]; it must mean one model of one engine.
    pub model: String,
}
long_call!(LoadModel, "models/load", Changes, ModelView, LoadProgress);

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LoadProgress {
    /// The engine was asked; it tells no more until it is done.
    pub asked: CanonicalModel,
}

/// Takes a model out of its engine's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloadModel {
    /// As in [`LoadModel`].
    pub model: String,
}
call!(UnloadModel, "models/unload", Changes, ModelView);

/// Has an engine fetch a model. Leaving it stops the engine where the engine can be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullModel {
    /// The engine's own name for it, or `flm://ENGINE_ID/MODEL`.
    pub model: String,
    /// Which engine; needed when there are several and the name does not say.
    pub engine: Option<EngineId>,
}
long_call!(PullModel, "models/pull", Changes, Vec<ModelView>, TransferProgress);

/// Removes a model from its engine's disk for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteModel {
    /// As in [`LoadModel`].
    pub model: String,
}
call!(DeleteModel, "models/delete", Destroys, CanonicalModel);
