//! Arguments of the console: `flm-tui`, and `flm tui`.

use clap::{Args, Parser};

use super::arguments::HomeArguments;
use crate::control::request::{Appearance, ConsoleRequest, Home, OwnerChoice};
use crate::types::calls::Permission;
use crate::types::language;

/// The seed of a demo that names none.
const DEFAULT_SEED: u64 = 1;

/// Shows and runs the proxy in this terminal; finds engines and starts the proxy when it is not running.
#[derive(Debug, Parser)]
#[command(
    name = "flm-tui",
    version,
    after_help = "Examples:\n  flm-tui\n  flm-tui --demo\n  flm-tui --read-only --theme light\n\nIn scripts use the flm commands: flm --help"
)]
pub(super) struct FlmTui {
    #[command(flatten)]
    pub(super) home: HomeArguments,
    #[command(flatten)]
    pub(super) options: ConsoleArguments,
}

#[derive(Debug, Args)]
pub(super) struct ConsoleArguments {
    /// Run the proxy inside this program instead of a background daemon: it ends with the console
    #[arg(long)]
    in_process: bool,
    /// Show a made-up engine and made-up clients in a temporary home; your data is not touched
    #[arg(long, conflicts_with_all = ["in_process", "read_only"])]
    demo: bool,
    /// Make the demo's clients do the same again
    #[arg(long, value_name = "N", requires = "demo")]
    demo_seed: Option<u64>,
    /// Show everything, change nothing
    #[arg(long)]
    read_only: bool,
    /// Language to speak, such as en [default: the system's]
    #[arg(long, value_name = "LANGUAGE", value_parser = spoken)]
    language: Option<String>,
    /// Colour theme
    #[arg(long, value_name = "NAME")]
    theme: Option<String>,
    /// Draw with ASCII characters only
    #[arg(long)]
    ascii: bool,
    /// Leave the mouse to the terminal
    #[arg(long)]
    no_mouse: bool,
}

/// A language that there is a file for, or `auto`.
fn spoken(wanted: &str) -> Result<String, String> {
    let known = language::CHOICES.contains(&wanted) || language::spoken(wanted).is_some();
    known.then(|| wanted.to_owned()).ok_or_else(|| format!("it must be one of {}", language::CHOICES.join(", ")))
}

/// What the arguments ask for.
pub(super) fn console_request(home: Home, arguments: &ConsoleArguments) -> ConsoleRequest {
    let owner = if arguments.demo {
        OwnerChoice::Demo { seed: arguments.demo_seed.unwrap_or(DEFAULT_SEED) }
    } else if arguments.in_process {
        OwnerChoice::InProcess
    } else {
        OwnerChoice::Daemon
    };
    ConsoleRequest {
        home,
        owner,
        permission: if arguments.read_only { Permission::ReadOnly } else { Permission::Full },
        appearance: Appearance {
            language: arguments.language.clone(),
            theme: arguments.theme.clone(),
            ascii: arguments.ascii.then_some(true),
            mouse: arguments.no_mouse.then_some(false),
        },
    }
}
