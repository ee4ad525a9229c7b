//! Operations on model profiles (SPEC §2 `flm model-profiles`, §8.2).

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::ids::EngineId;
use crate::types::profile::{Parameter, ProfileView};

/// Lists profiles by engine and model.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListProfiles {
    /// Only of this engine.
    pub engine: Option<EngineId>,
    /// Only of this model.
    pub model: Option<String>,
}
call!(ListProfiles, "profiles/list", Reads, Vec<ProfileView>);

/// Saves the profile of a model on an engine, in place of the one that it has; in force for the next request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaveProfile {
    /// The engine.
    pub engine: EngineId,
    /// The engine's own name for the model.
    pub model: String,
    /// A name for people, 1 to 80 characters.
    pub label: String,
    /// Its values, at least one.
    pub parameters: Vec<Parameter>,
}
call!(SaveProfile, "profiles/save", Changes, ProfileView);

/// Deletes a profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteProfile {
    /// Its number.
    pub id: i64,
}
call!(DeleteProfile, "profiles/delete", Destroys, ProfileView);
