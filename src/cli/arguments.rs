//! The command tree of `flm` (SPEC §2). Help texts are the doc comments; every command shows an example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::alerts::AlertsCommand;
use super::aliases::AliasesCommand;
use super::api_keys::KeysCommand;
use super::audit_logs::AuditCommand;
use super::bench::BenchArguments;
use super::chat::ChatArguments;
use super::check::CheckArguments;
use super::config::ConfigCommand;
use super::connect::ConnectArguments;
use super::console::ConsoleArguments;
use super::doctor;
use super::engines::EnginesCommand;
use super::expose::ExposeArguments;
use super::firewall::FirewallCommand;
use super::logs::LogsArguments;
use super::migrate::MigrateCommand;
use super::models::ModelsCommand;
use super::output::{Format, Output};
use super::profiles::ProfilesCommand;
use super::prompts::ApiCommand;
use super::proxy::ProxyCommand;
use super::security::SecurityCommand;
use super::session::Session;
use super::usage::UsageArguments;
use crate::config::paths::PathOverrides;
use crate::control::protocol;
use crate::control::request::Home;
use crate::types::failure::Outcome;

/// Publishes the language models of this machine behind one guarded OpenAI-compatible endpoint.
#[derive(Debug, Parser)]
#[command(
    name = "flm",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = false,
    after_help = "Examples:\n  flm engines detect\n  flm proxy start\n  flm api-keys create --label laptop\n  flm tui"
)]
pub(super) struct Flm {
    #[command(flatten)]
    pub(super) place: PlaceArguments,
    #[command(subcommand)]
    pub(super) command: FlmCommand,
}

/// Which home, and how results are written.
#[derive(Debug, Args)]
pub(super) struct PlaceArguments {
    /// Folder that holds everything of this home [default: the platform's folders]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "FLM_HOME",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    home: Option<PathBuf>,
    /// Settings database, when it is elsewhere
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    db_path_config: Option<PathBuf>,
    /// Encrypted database, when it is elsewhere
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    db_path_security: Option<PathBuf>,
    /// How results are written [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Global options")]
    pub(super) format: Option<Format>,
}

impl PlaceArguments {
    pub(super) fn home_arguments(&self) -> HomeArguments {
        HomeArguments {
            home: self.home.clone(),
            db_path_config: self.db_path_config.clone(),
            db_path_security: self.db_path_security.clone(),
        }
    }
}

/// Which home, for programs without a format.
#[derive(Debug, Clone, Args)]
pub(super) struct HomeArguments {
    /// Folder that holds everything of this home [default: the platform's folders]
    #[arg(long, value_name = "DIR", env = "FLM_HOME", hide_env_values = true)]
    home: Option<PathBuf>,
    /// Settings database, when it is elsewhere
    #[arg(long, value_name = "FILE")]
    db_path_config: Option<PathBuf>,
    /// Encrypted database, when it is elsewhere
    #[arg(long, value_name = "FILE")]
    db_path_security: Option<PathBuf>,
}

impl HomeArguments {
    pub(super) fn resolve(self) -> Outcome<Home> {
        Home::resolve(PathOverrides {
            home: self.home,
            config_db: self.db_path_config,
            security_db: self.db_path_security,
        })
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum FlmCommand {
    /// Find, list, add and remove engines
    #[command(subcommand, after_help = "Example:\n  flm engines detect --fresh")]
    Engines(EnginesCommand),
    /// List, load, unload, fetch and delete models
    #[command(subcommand, after_help = "Example:\n  flm models list")]
    Models(ModelsCommand),
    /// Start, stop and watch the proxy
    #[command(subcommand, after_help = "Example:\n  flm proxy start --port 8484")]
    Proxy(ProxyCommand),
    /// Make, list, change and revoke API keys
    #[command(subcommand, after_help = "Example:\n  flm api-keys create --label laptop --expires 90d")]
    ApiKeys(KeysCommand),
    /// Address lists and the audit log
    #[command(subcommand, after_help = "Example:\n  flm security ip-blocklist add 203.0.113.7 --for 2h")]
    Security(SecurityCommand),
    /// Prompts that are put in front of requests
    #[command(subcommand, after_help = "Example:\n  flm api prompts list")]
    Api(ApiCommand),
    /// Who is told of security events, and what became of it
    #[command(subcommand, after_help = "Example:\n  flm alerts add ntfy --id phone --topic flm-4f9c2a71b0e8")]
    Alerts(AlertsCommand),
    /// Names of your own for models: balanced over several, or one after the other
    #[command(subcommand, after_help = "Example:\n  flm aliases set fast ollama/llama3.2:3b")]
    Aliases(AliasesCommand),
    /// Defaults and pinned values per model
    #[command(subcommand, after_help = "Example:\n  flm model-profiles list")]
    ModelProfiles(ProfilesCommand),
    /// Read and change settings
    #[command(subcommand, after_help = "Example:\n  flm config set log.level debug")]
    Config(ConfigCommand),
    /// Ask a model one question through the own endpoint; Ctrl-C ends its work
    #[command(after_help = "Examples:\n  flm chat --model llama3.2:3b --prompt 'Why is the sky blue?' --stream\n  \
                            git diff | flm chat --model llama3.2:3b --stream")]
    Chat(ChatArguments),
    /// Print the settings of a client program for the own endpoint, and try them
    #[command(after_help = "Examples:\n  flm connect claude --model qwen3:8b\n  flm connect openai-python --test")]
    Connect(ConnectArguments),
    /// Measure the own endpoint: time to first token, tokens per second, percentiles
    #[command(after_help = "Example:\n  flm bench --model llama3.2:3b --concurrency 4 --duration 30s")]
    Bench(BenchArguments),
    /// Sum requests, tokens and times by key, model, engine or day
    #[command(after_help = "Example:\n  flm usage --by key --since 7d")]
    Usage(UsageArguments),
    /// Read and follow the log, change how much is logged, and list requests
    #[command(after_help = "Examples:\n  flm logs --follow\n  flm logs --since 1h --min warn\n  \
                            flm logs --level debug\n  flm logs --target proxy=trace,net=debug\n  flm logs requests --since 1h")]
    Logs(LogsArguments),
    /// Ask which engine and proxy ports answer from where, with or without a key, and how to mend it
    #[command(after_help = "Example:\n  flm expose-check")]
    ExposeCheck(ExposeArguments),
    /// Look at everything that this home needs: databases, keys, modes, disk, listeners
    #[command(
        after_help = "Examples:\n  flm check\n  flm check --verbose --format json\n\nEnds with 0 when nothing failed, 2 when a database or the disk is at fault, else 1"
    )]
    Check(CheckArguments),
    /// Move in from the old program
    #[command(subcommand, after_help = "Example:\n  flm migrate legacy plan --source ~/.old-flm")]
    Migrate(MigrateCommand),
    /// Tell everything that a support person would ask for; no secret is in it
    #[command(after_help = "Examples:\n  flm doctor\n  flm doctor --format json > doctor.json")]
    Doctor,
    /// Show, apply and take back the machine's firewall rules for the listeners
    #[command(subcommand, after_help = "Example:\n  flm firewall preview")]
    Firewall(FirewallCommand),
    /// Open the console
    #[command(after_help = "Example:\n  flm tui --read-only")]
    Tui(ConsoleArguments),
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  flm completions bash > ~/.local/share/bash-completion/completions/flm")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write those of all commands into a folder
    #[command(after_help = "Examples:\n  flm man | man -l -\n  flm man --output ~/.local/share/man/man1")]
    Man {
        /// Write every page here: flm.1, flm-engines.1, …
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// Print the version
    #[command(after_help = "Example:\n  flm version --format json")]
    Version,
}

impl FlmCommand {
    /// Whether it writes a file that can be comma-separated.
    pub(super) fn exports(&self) -> bool {
        matches!(self, Self::Security(SecurityCommand::AuditLogs(AuditCommand::Export { .. })))
    }

    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Engines(command) => command.run(session).await,
            Self::Models(command) => command.run(session).await,
            Self::Proxy(command) => command.run(session).await,
            Self::ApiKeys(command) => command.run(session).await,
            Self::Security(command) => command.run(session).await,
            Self::Api(ApiCommand::Prompts(command)) => command.run(session).await,
            Self::Alerts(command) => command.run(session).await,
            Self::Aliases(command) => command.run(session).await,
            Self::ModelProfiles(command) => command.run(session).await,
            Self::Config(command) => command.run(session).await,
            Self::Chat(arguments) => arguments.run(session).await,
            Self::Connect(arguments) => arguments.run(session).await,
            Self::Bench(arguments) => arguments.run(session).await,
            Self::Usage(arguments) => arguments.run(session).await,
            Self::Logs(arguments) => arguments.run(session).await,
            Self::ExposeCheck(arguments) => arguments.run(session).await,
            Self::Check(arguments) => arguments.run(session).await,
            Self::Migrate(command) => command.run(session).await,
            Self::Doctor => doctor::run(session).await,
            Self::Firewall(command) => command.run(session).await,
            // Done before a home is opened.
            Self::Tui(_) | Self::Completions { .. } | Self::Man { .. } | Self::Version => Ok(version()),
        }
    }
}

/// Which version this is. Needs no home.
pub(super) fn version() -> Output {
    Output::new(&serde_json::json!({ "version": protocol::VERSION }), format!("flm {}", protocol::VERSION))
}
