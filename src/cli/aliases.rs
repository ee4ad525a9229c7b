//! `flm aliases`.

use std::sync::Arc;

use clap::Subcommand;

use super::output::Output;
use super::session::Session;
use super::table::{Table, time};
use crate::types::alias::{AliasOrder, AliasView};
use crate::types::calls::aliases::{ListAliases, RemoveAlias, SetAlias};
use crate::types::failure::Outcome;
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum AliasesCommand {
    /// List aliases with the models that they stand for
    #[command(after_help = "Example:\n  flm aliases list")]
    List,
    /// Set an alias, in place of the one of that name
    #[command(after_help = "Examples:\n  flm aliases set gpt-4o ollama/qwen3:32b\n  \
            flm aliases set fast lab/llama-3 desk/llama-3          (balanced over both)\n  \
            flm aliases set big lab/llama-3 cloud/llama-3 --in-order (cloud only when lab does not serve)")]
    Set {
        /// The name that clients use
        #[arg(value_name = "ALIAS")]
        name: Arc<str>,
        /// Models.
        #[arg(required = true, value_name = "TARGET", help = "flm://ENGINE_ID/MODEL, ENGINE_ID/MODEL or a bare name")]
        targets: Vec<Arc<str>>,
        /// Use the first as long as it serves, the next only when it does not [default: balanced over all]
        #[arg(long)]
        in_order: bool,
    },
    /// Remove an alias; the models stay
    #[command(after_help = "Example:\n  flm aliases remove fast")]
    Remove {
        /// Its name
        #[arg(value_name = "ALIAS")]
        name: Arc<str>,
    },
}

impl AliasesCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::List => {
                let aliases = session.call(ListAliases {}).await?;
                Ok(Output::new(&aliases, listing(&aliases)))
            }
            Self::Set { name, targets, in_order } => {
                let order = if in_order { AliasOrder::FirstServing } else { AliasOrder::Balanced };
                let alias = session.call(SetAlias { name, targets, order }).await?;
                let text = format!("alias {} stands for {}", escape(&alias.name), targets_of(&alias));
                Ok(Output::new(&alias, text))
            }
            Self::Remove { name } => {
                let alias = session.call(RemoveAlias { name }).await?;
                Ok(Output::new(&alias, format!("alias {} removed", escape(&alias.name))))
            }
        }
    }
}

fn listing(aliases: &[AliasView]) -> String {
    let mut table = Table::new(&["ALIAS", "ORDER", "SET", "TARGETS"]);
    for alias in aliases {
        let order = match alias.order {
            AliasOrder::Balanced => "balanced",
            AliasOrder::FirstServing => "in order",
        };
        table.row([alias.name.to_string(), order.to_owned(), time(alias.updated), targets_of(alias)]);
    }
    table.or("no aliases: set one with 'flm aliases set ALIAS TARGET…'")
}

fn targets_of(alias: &AliasView) -> String {
    alias.targets.iter().map(|target| escape(target)).collect::<Vec<_>>().join(" ")
}
