//! The table of all operations: walked by dispatch, and by the test that no call is forgotten.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::context::Context;
use super::progress::Reporter;
use super::{
    addresses, alerts, aliases, audit_log, authority, backup, bench, captures, certificates, chat, check, comparisons,
    connect, doctor, engines, expose, firewall, keys, leak, legacy, lock, logs, models, policy, profiles, prompts,
    proxy, publish, reload, replay, requests, settings, usage,
};
use crate::types::calls::addresses::{
    AddBlock, AddNetwork, ClearBlocks, ImportBlocks, ListBlocks, ListNetworks, RemoveBlock, RemoveNetwork,
};
use crate::types::calls::alerts::{
    AddAlertChannel, EditAlertChannel, ListAlertChannels, ListDeliveries, ListInbox, MarkRead, RemoveAlertChannel,
    TestAlertChannel,
};
use crate::types::calls::aliases::{ListAliases, RemoveAlias, SetAlias};
use crate::types::calls::audit::{ArchiveAudit, ExportAudit, ListAudit, VerifyAudit};
use crate::types::calls::authority::{InitAuthority, InstallAuthority, IssueCertificate, ShowAuthority};
use crate::types::calls::backup::{CreateBackup, ListBackups, ShowLock};
use crate::types::calls::captures::{ClearCaptures, ListCaptures, ReplayCapture, ShowCapture};
use crate::types::calls::certificates::RenewCertificate;
use crate::types::calls::chat::{Bench, Chat};
use crate::types::calls::check::Check;
use crate::types::calls::comparisons::{
    CompareModels, DeleteComparison, ListComparisons, SaveComparison, ShowComparison,
};
use crate::types::calls::connect::Connect;
use crate::types::calls::doctor::Diagnose;
use crate::types::calls::engines::{
    AddEngine, DetectEngines, EditEngine, EngineHealth, ListEngineKinds, ListEngines, RemoveEngine,
};
use crate::types::calls::expose::ExposeCheck;
use crate::types::calls::firewall::{DecideFirewall, PreviewFirewall, RecordFirewall, ShowFirewall};
use crate::types::calls::keys::{
    CreateKey, EditKey, EnsureFirstKey, ListKeys, PreviewLeak, RevokeKey, RevokeLeaked, RotateKey, ShowKey,
};
use crate::types::calls::legacy::{ApplyLegacy, ConvertLegacy, PlanLegacy};
use crate::types::calls::logs::ReadLogs;
use crate::types::calls::models::{
    DeleteModel, ListModels, LoadModel, PullModel, RefreshModels, ShowModel, UnloadModel,
};
use crate::types::calls::policy::{SetPolicy, ShowPolicy, ValidatePolicy};
use crate::types::calls::profiles::{DeleteProfile, ListProfiles, SaveProfile};
use crate::types::calls::prompts::{
    DeletePrompt, ListPromptRoutes, ListPrompts, PreviewPrompt, PromptHistory, SetPrompt, ShowPrompt,
};
use crate::types::calls::proxy::{EndOwner, Reload, Snapshot, StartListener, Status, StopListener};
use crate::types::calls::publish::CheckPublish;
use crate::types::calls::replay::{ReplayRequests, SecurityStats};
use crate::types::calls::requests::{ListRequests, PageRequests};
use crate::types::calls::settings::{ListSettings, SetSetting, ShowPaths, ShowSetting, UnsetSetting};
use crate::types::calls::usage::ShowUsage;
use crate::types::calls::{Access, Call};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// A running operation.
pub type Running = Pin<Box<dyn Future<Output = Outcome<Bytes>> + Send>>;

/// One operation.
pub struct Operation {
    /// Its path on the control socket.
    pub name: &'static str,
    /// What it does to the home.
    pub access: Access,
    /// Runs it: JSON arguments in, JSON result out.
    pub run: Run,
}

/// How an operation runs.
pub enum Run {
    /// It answers once.
    Short(fn(Arc<Context>, Bytes) -> Running),
    /// It tells how far it is, each time as JSON.
    Long(fn(Arc<Context>, Bytes, mpsc::Sender<Bytes>) -> Running),
}

/// Writes the shape of an answer.
#[cfg(test)]
pub(super) type Shape = fn(&mut schemars::SchemaGenerator) -> schemars::Schema;

/// Writes [`OPERATIONS`]: each call with the function that runs it.
macro_rules! operations {
    (
        short { $($call:ident => $function:path),* $(,)? }
        long { $($long:ident => $work:path),* $(,)? }
    ) => {
        /// Every operation.
        pub static OPERATIONS: &[Operation] = &[$(
            Operation {
                name: <$call as Call>::NAME,
                access: <$call as Call>::ACCESS,
                run: Run::Short(|context, arguments| Box::pin(async move {
                    let call: $call = read_arguments(<$call as Call>::NAME, &arguments)?;
                    let output: <$call as Call>::Output = $function(&context, call).await?;
                    write_result(<$call as Call>::NAME, &output)
                })),
            },
        )* $(
            Operation {
                name: <$long as Call>::NAME,
                access: <$long as Call>::ACCESS,
                run: Run::Long(|context, arguments, lane| Box::pin(async move {
                    let call: $long = read_arguments(<$long as Call>::NAME, &arguments)?;
                    let output: <$long as Call>::Output = $work(&context, call, Reporter::new(lane)).await?;
                    write_result(<$long as Call>::NAME, &output)
                })),
            },
        )*];

        /// The name of each operation, and the shape of what it answers.
        #[cfg(test)]
        pub(super) static ANSWERS: &[(&str, Shape)] = &[
            $((<$call as Call>::NAME, |generator| generator.subschema_for::<<$call as Call>::Output>()),)*
            $((<$long as Call>::NAME, |generator| generator.subschema_for::<<$long as Call>::Output>()),)*
        ];
    };
}

operations! {
    short {
        AddAlertChannel => alerts::add,
        AddBlock => addresses::add_block,
        ImportBlocks => addresses::import_blocks,
        AddEngine => engines::add,
        AddNetwork => addresses::add_network,
        ArchiveAudit => audit_log::archive,
        CheckPublish => publish::check,
        ClearBlocks => addresses::clear_blocks,
        ClearCaptures => captures::clear,
        Connect => connect::show,
        ConvertLegacy => legacy::convert,
        CreateKey => keys::create,
        DecideFirewall => firewall::decide,
        DeleteComparison => comparisons::delete,
        DeleteModel => models::delete,
        DeleteProfile => profiles::delete,
        DeletePrompt => prompts::delete,
        DetectEngines => engines::detect,
        EditAlertChannel => alerts::edit,
        Diagnose => doctor::diagnose,
        EditKey => keys::edit,
        EndOwner => proxy::end,
        EngineHealth => engines::health,
        EnsureFirstKey => keys::ensure_first,
        ExportAudit => audit_log::export,
        ExposeCheck => expose::check,
        InitAuthority => authority::init,
        InstallAuthority => authority::install,
        IssueCertificate => authority::issue,
        ListAlertChannels => alerts::list,
        ListAliases => aliases::list,
        ListAudit => audit_log::list,
        ListBackups => backup::list,
        ListBlocks => addresses::list_blocks,
        ListCaptures => captures::list,
        ListComparisons => comparisons::list,
        ListDeliveries => alerts::deliveries,
        ListEngineKinds => engines::kinds,
        ListEngines => engines::list,
        ListInbox => alerts::inbox,
        ListKeys => keys::list,
        ListModels => models::list,
        ListNetworks => addresses::list_networks,
        ListProfiles => profiles::list,
        ListPromptRoutes => prompts::routes,
        ListPrompts => prompts::list,
        ListRequests => requests::list,
        PageRequests => requests::page,
        ListSettings => settings::list,
        MarkRead => alerts::mark_read,
        PlanLegacy => legacy::plan,
        PreviewFirewall => firewall::preview,
        PreviewLeak => leak::preview,
        PreviewPrompt => prompts::preview,
        PromptHistory => prompts::history,
        RecordFirewall => firewall::note,
        ReadLogs => logs::read,
        RefreshModels => models::refresh,
        Reload => reload::reload,
        RemoveAlertChannel => alerts::remove,
        RemoveAlias => aliases::remove,
        RemoveBlock => addresses::remove_block,
        EditEngine => engines::edit,
        RemoveEngine => engines::remove,
        RemoveNetwork => addresses::remove_network,
        ReplayRequests => replay::replay,
        RevokeKey => keys::revoke,
        RevokeLeaked => leak::revoke,
        RotateKey => keys::rotate,
        SaveComparison => comparisons::save,
        SaveProfile => profiles::save,
        SecurityStats => replay::stats,
        SetAlias => aliases::set,
        SetPolicy => policy::set,
        SetPrompt => prompts::set,
        SetSetting => settings::set,
        ShowAuthority => authority::show,
        ShowCapture => captures::show,
        ShowComparison => comparisons::show,
        ShowFirewall => firewall::show,
        ShowKey => keys::show,
        ShowLock => lock::show,
        ShowModel => models::show,
        ShowPaths => settings::paths,
        ShowPolicy => policy::show,
        ShowPrompt => prompts::show,
        ShowSetting => settings::show,
        ShowUsage => usage::show,
        Snapshot => proxy::snapshot,
        Status => proxy::status,
        StopListener => proxy::stop,
        TestAlertChannel => alerts::test,
        UnloadModel => models::unload,
        UnsetSetting => settings::unset,
        ValidatePolicy => policy::validate,
        VerifyAudit => audit_log::verify,
    }
    long {
        ApplyLegacy => legacy::apply,
        Bench => bench::run,
        Chat => chat::send,
        Check => check::run,
        CompareModels => comparisons::run,
        CreateBackup => backup::create,
        LoadModel => models::load,
        PullModel => models::pull,
        RenewCertificate => certificates::renew,
        ReplayCapture => captures::replay,
        StartListener => proxy::start,
    }
}

/// The operation of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

fn read_arguments<C: Call>(name: &str, arguments: &[u8]) -> Outcome<C> {
    // No body means no arguments.
    let text = if arguments.is_empty() { b"{}" } else { arguments };
    serde_json::from_slice(text).map_err(|error| {
        Failure::new(ErrorCode::InvalidArgument, format!("the arguments of {name} are wrong: {error}"))
    })
}

fn write_result<T: serde::Serialize>(name: &str, output: &T) -> Outcome<Bytes> {
    serde_json::to_vec(output)
        .map(Bytes::from)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the result of {name} cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_call_of_the_contract_is_registered_once() {
        // Read from the sources, so that a new call that nobody registered fails here.
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/types/calls");
        let mut declared = BTreeSet::new();
        for file in std::fs::read_dir(folder).expect("folder of calls") {
            let text = std::fs::read_to_string(file.expect("entry").path()).expect("reads");
            let declares = |line: &&str| line.starts_with("call!(") || line.starts_with("long_call!(");
            for line in text.lines().filter(declares) {
                declared.insert(line.split('"').nth(1).expect("a path in quotes").to_owned());
            }
        }
        let registered: Vec<_> = OPERATIONS.iter().map(|operation| operation.name.to_owned()).collect();
        assert_eq!(registered.len(), registered.iter().collect::<BTreeSet<_>>().len(), "a name twice");
        assert_eq!(registered.into_iter().collect::<BTreeSet<_>>(), declared);
        assert!(declared.len() > 30, "the scan found too little: {declared:?}");
    }
}
