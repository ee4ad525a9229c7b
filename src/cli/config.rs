//! `flm config`.

use clap::Subcommand;
use serde_json::Value;

use super::output::Output;
use super::session::Session;
use super::table::{Table, facts};
use crate::types::calls::settings::{
    ListSettings, ReloadClass, SetSetting, SettingSource, SettingView, ShowPaths, ShowSetting, UnsetSetting,
};
use crate::types::failure::Outcome;
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print one value
    #[command(after_help = "Example:\n  flm config get log.level")]
    Get {
        /// Name of the setting
        key: String,
    },
    /// Store one value
    #[command(after_help = "Example:\n  flm config set log.level debug")]
    Set {
        /// Name of the setting
        key: String,
        /// New value
        value: String,
    },
    /// Take a stored value out again, so that the default holds
    #[command(after_help = "Example:\n  flm config unset log.level")]
    Unset {
        /// Name of the setting
        key: String,
    },
    /// List all settings with value and origin
    #[command(after_help = "Example:\n  flm config list")]
    List,
    /// Print where the files of this home are
    #[command(after_help = "Example:\n  flm config path")]
    Path,
}

impl ConfigCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Get { key } => {
                let view = session.call(ShowSetting { key }).await?;
                Ok(Output::new(&view, escape(&view.value)))
            }
            Self::Set { key, value } => Ok(settled(&session.call(SetSetting { key, value }).await?, "stored")),
            Self::Unset { key } => match session.call(UnsetSetting { key: key.clone() }).await? {
                Some(view) => Ok(settled(&view, "not stored any more")),
                None => Ok(Output::new(&Value::Null, format!("{} is not stored any more", escape(&key)))),
            },
            Self::List => {
                let views = session.call(ListSettings {}).await?;
                Ok(Output::new(&views, listing(&views)))
            }
            Self::Path => {
                let paths = session.call(ShowPaths {}).await?;
                let text = facts([
                    ("config file", paths.config_file.clone()),
                    ("config.db", paths.config_db.clone()),
                    ("security.db", paths.security_db.clone()),
                    ("key file", paths.key_file.clone()),
                    ("socket", paths.socket.clone()),
                    ("logs", paths.logs.clone()),
                ]);
                Ok(Output::new(&paths, text))
            }
        }
    }
}

/// What holds after a change of what is stored.
fn settled(view: &SettingView, what: &str) -> Output {
    let output = Output::new(view, format!("{} = {}", view.key, escape(&view.value)));
    match (view.source, view.reload) {
        (SettingSource::Flag | SettingSource::Environment | SettingSource::File, _) => {
            output.note(format!("{what}, but {} still sets it to {}", origin(view.source), escape(&view.value)))
        }
        (_, ReloadClass::Restart) => output.note("in force when the proxy starts again"),
        (_, ReloadClass::Live) => output,
    }
}

fn listing(views: &[SettingView]) -> String {
    let mut table = Table::new(&["SETTING", "VALUE", "FROM", "WHAT IT DOES"]);
    for view in views {
        let unit = if view.unit.is_empty() { String::new() } else { format!(" {}", view.unit) };
        let value = if view.value.is_empty() { "-".to_owned() } else { format!("{}{unit}", view.value) };
        table.row([view.key.clone(), value, origin(view.source).to_owned(), view.doc.clone()]);
    }
    table.or("no settings")
}

fn origin(source: SettingSource) -> &'static str {
    match source {
        SettingSource::Flag => "the command line",
        SettingSource::Environment => "the environment",
        SettingSource::File => "flm.toml",
        SettingSource::Database => "config.db",
        SettingSource::Default => "default",
    }
}
