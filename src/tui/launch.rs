//! From command line and settings to [`ConsoleOptions`]. Called by the binaries before the first frame.

use std::path::Path;

use crate::config::{files, table};
use crate::control::request::ConsoleRequest;
use crate::tui::effect::MouseUse;
use crate::tui::widgets::symbols::{CharacterSet, Motion};
use crate::tui::{ConsoleAccess, ConsoleError, ConsoleOptions, OnHangup, StartDetection, theme_watch};
use crate::types::calls::Permission;
use crate::types::calls::settings::{SettingSource, SettingView};
use crate::types::failure::{ErrorCode, Failure};

/// Lays settings over what the environment suggests, and the command line over both.
#[must_use]
pub fn console_options(
    request: &ConsoleRequest,
    settings: &[SettingView],
    config_dir: &Path,
    log_dir: &Path,
) -> ConsoleOptions {
    let mut options = ConsoleOptions::from_environment(|name| std::env::var(name).ok());
    let value = |key: &str| settings.iter().find(|view| view.key == key).map(|view| view.value.as_str());
    let flags = &request.appearance;

    // "auto" leaves what the system asks for.
    if let Some(language) = flags.language.as_deref().or(value("preferred_language")).filter(|&name| name != "auto") {
        language.clone_into(&mut options.language);
    }
    if let Some(theme) = flags.theme.as_deref().or(value("console.theme")) {
        theme.clone_into(&mut options.theme);
    }
    match (flags.ascii, value("console.ascii")) {
        (Some(true), _) | (None, Some("on")) => options.characters = CharacterSet::Ascii,
        (Some(false), _) | (None, Some("off")) => options.characters = CharacterSet::Unicode,
        _ => {}
    }
    let chosen = settings.iter().find(|view| view.key == "console.mouse" && view.source != SettingSource::Default);
    match flags.mouse.or(chosen.map(|view| view.value == "true")) {
        Some(true) => options.mouse = MouseUse::Console,
        Some(false) => options.mouse = MouseUse::Terminal,
        None => {}
    }
    if value("console.motion") == Some("false") {
        options.motion = Motion::Reduced;
    }
    if let Some(refresh) = value("console.refresh").and_then(|text| text.parse().ok()) {
        options.refresh = refresh;
    }
    if value("console.on_hangup") == Some("stop") {
        options.on_hangup = OnHangup::Stop;
    }
    if value(table::ENGINE_DETECT_AT_START.definition.key) == Some("false") {
        options.start_detection = StartDetection::Off;
    }
    if request.permission == Permission::ReadOnly {
        options.access = ConsoleAccess::ReadOnly;
    }
    let themes = config_dir.join("themes");
    options.user_themes = theme_watch::read(&themes);
    options.theme_folder = Some(themes);
    options.keymap = files::read_if_exists(&config_dir.join("keymap.toml")).ok().flatten();
    options.export_folder = std::env::current_dir().unwrap_or_default();
    options.panic_report = Some(log_dir.join("panic.txt"));
    options
}

impl From<ConsoleError> for Failure {
    fn from(error: ConsoleError) -> Self {
        Self::new(ErrorCode::IoError, format!("{error}: {}", error.0))
            .hint("open it in an ordinary terminal, or use the flm commands")
    }
}
