//! `flm security policy`: the one value that says what guards the endpoint, and how strictly (SPEC §5).

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::output::Output;
use super::session::Session;
use super::table::Table;
use crate::config::files;
use crate::types::calls::policy::{SetPolicy, ShowPolicy, ValidatePolicy};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::policy::{HoneypotPath, Mode, RuleName, SecurityPolicy};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Show the policy in force
    #[command(after_help = "Example:\n  flm security policy show --format json")]
    Show,
    /// Put a policy in force at once; what the file does not name has its default
    #[command(after_help = "Example:\n  flm security policy set --json policy.json")]
    Set(PolicyFile),
    /// Check a policy and change nothing
    #[command(after_help = "Example:\n  flm security policy validate --json policy.json")]
    Validate(PolicyFile),
    /// Print the JSON schema of the policy
    #[command(after_help = "Example:\n  flm security policy schema > policy.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
pub(super) struct PolicyFile {
    /// File with the policy as JSON
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
}

impl PolicyCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Show => {
                let policy = session.call(ShowPolicy {}).await?;
                Ok(Output::new(&policy, text(&policy)))
            }
            Self::Set(file) => {
                let policy = session.call(SetPolicy { json: read(&file.json)? }).await?;
                let shown = format!("the policy is in force\n\n{}", text(&policy));
                Ok(Output::new(&policy, shown))
            }
            Self::Validate(file) => {
                let policy = session.call(ValidatePolicy { json: read(&file.json)? }).await?;
                Ok(Output::new(&policy, format!("{} is a valid policy", file.json.display())))
            }
            // For programs whatever the format: an editor takes the document itself.
            Self::Schema => {
                let schema = SecurityPolicy::schema();
                let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
                Ok(Output::bare(&schema, text))
            }
        }
    }
}

fn read(path: &Path) -> Outcome<String> {
    files::read_to_string(path).map_err(|error| {
        Failure::new(ErrorCode::IoError, format!("the policy cannot be read: {error}: {}", error.source))
            .hint(error.hint())
    })
}

fn text(policy: &SecurityPolicy) -> String {
    let mut rules = Table::new(&["RULE", "MODE", "POINTS", "PER MINUTE"]);
    for rule in RuleName::ALL {
        let scoring = policy.rules.scoring(rule);
        rules.row([
            rule.to_string(),
            mode(scoring.mode).to_owned(),
            scoring.points.to_string(),
            scoring.per_minute.to_string(),
        ]);
    }
    let failed = &policy.failed_authentication;
    let steps: Vec<_> = failed
        .steps
        .as_slice()
        .iter()
        .map(|step| match step.block_minutes {
            Some(minutes) => format!("{} block for {minutes} min", step.failures),
            None => format!("{} block until lifted by hand", step.failures),
        })
        .collect();
    let (score, rate) = (&policy.score, &policy.address_rate);
    let (parallel, surge, resources) = (&policy.address_in_flight, &policy.key_surge, &policy.resources);
    let honeypots: Vec<_> = policy.honeypot_paths.iter().map(HoneypotPath::as_str).collect();
    format!(
        "{}\n\n\
         score            {} warns, {} blocks for {} min, {} for {} min; halved every {} min\n\
         wrong keys       {}: within {} h, {}\n\
         address rate     {}: {} a minute, {} at once\n\
         in flight        {}: {} of one address\n\
         key surge        {}: {} times the usual rate for {} min, at least {} a minute\n\
         resources        {}: {} % of the cores for {} s, less than {} MB or {} % of memory for {} s\n\
         more honeypots   {}",
        rules.or("no rules"),
        score.warn_at,
        score.block_at,
        score.block_minutes,
        score.long_block_at,
        score.long_block_minutes,
        score.half_life_minutes,
        mode(failed.mode),
        failed.window_hours,
        steps.join(", "),
        mode(rate.mode),
        rate.per_minute,
        rate.burst,
        mode(parallel.mode),
        parallel.most,
        mode(surge.mode),
        surge.times,
        surge.minutes,
        surge.least_per_minute,
        mode(resources.mode),
        resources.cpu_percent,
        resources.cpu_seconds,
        resources.memory_megabytes,
        resources.memory_percent,
        resources.memory_seconds,
        if honeypots.is_empty() { "none".to_owned() } else { honeypots.join(", ") },
    )
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Simulate => "simulate",
        Mode::Enforce => "enforce",
    }
}
