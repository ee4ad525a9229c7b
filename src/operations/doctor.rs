//! `flm doctor`: the home and the process that owns it, as a support person asks for them. No secret leaves here.

use std::path::Path;

use super::context::{Context, blocking_panicked};
use super::engines;
use crate::config::files;
use crate::telemetry::logging;
use crate::types::calls::doctor::{DatabaseView, Diagnose, Diagnosis, EngineFacts, HomeCounts, ProcessFacts};
use crate::types::calls::engines::ListEngines;
use crate::types::calls::settings::SettingView;
use crate::types::failure::Outcome;
use crate::types::redact::{HIDDEN, redact};
use crate::types::text::escape;

/// Settings whose value is nobody else's business.
const PRIVATE_SETTINGS: [&str; 1] = ["egress.user"];
/// Words in the name of a setting whose value would be a secret, should there ever be one.
const SECRET_WORDS: [&str; 4] = ["password", "secret", "token", "passphrase"];
/// Lines of the log that are told.
const LOG_LINES: usize = 20;
/// Bytes of the newest log files that are looked through for them.
const LOG_BYTES: u64 = 4 << 20;
/// Characters of one line that are told.
const LINE_LENGTH: usize = 500;

/// Looks at everything.
pub async fn diagnose(context: &Context, _call: Diagnose) -> Outcome<Diagnosis> {
    let (paths, variables) = (context.paths.clone(), context.variables.clone());
    let now = context.clock.wall();
    let (process, log) = tokio::task::spawn_blocking(move || {
        let names = variables.into_iter().map(|(name, _)| name).filter(|name| is_read(name)).collect();
        let process = ProcessFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            now,
            zone: jiff::tz::TimeZone::system().iana_name().unwrap_or("unknown").to_owned(),
            variables: names,
            disk_free: disk_free(&paths.data_dir),
            open_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            ..machine()
        };
        (process, last_troubles(&paths.log_dir))
    })
    .await
    .map_err(|_| blocking_panicked("looking at the machine"))?;
    let live = context.live.as_ref();
    Ok(Diagnosis {
        process,
        proxy: live.map(|live| live.host.status()),
        egress: context.egress.status(),
        databases: databases(context).await?,
        settings: context.settings.load().list().into_iter().map(without_secret).collect(),
        engines: engines::list(context, ListEngines {}).await?.into_iter().map(facts).collect(),
        counts: counts(context).await?,
        log,
    })
}

/// Variables that FLM or an adapter reads.
fn is_read(name: &str) -> bool {
    let adapters = crate::engines::registry::ADAPTERS.iter().flat_map(|adapter| adapter.info().address_variables);
    name.starts_with("FLM_") || name == "CREDENTIALS_DIRECTORY" || adapters.copied().any(|known| known == name)
}

/// The parts that only the machine decides.
fn machine() -> ProcessFacts {
    let kernel = rustix::system::uname();
    // A system that does not tell its memory has none to tell of.
    let (memory, memory_available) = sysinfo::System::new().map_or((0, 0), |mut system| {
        system.refresh_memory();
        (system.total_memory(), system.available_memory())
    });
    ProcessFacts {
        version: String::new(),
        pid: 0,
        now: crate::types::clock::UnixMillis(0),
        zone: String::new(),
        system: format!("{} {}", kernel.sysname().to_string_lossy(), kernel.release().to_string_lossy()),
        architecture: std::env::consts::ARCH.to_owned(),
        cores: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        memory,
        memory_available,
        disk_free: None,
        open_files: None,
        variables: Vec::new(),
    }
}

fn disk_free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

async fn databases(context: &Context) -> Outcome<Vec<DatabaseView>> {
    let (config, security) = (&context.stores.config, &context.stores.security);
    let told = [
        (config.path(), config.facts().await?, config.read_only()),
        (security.path(), security.facts().await?, security.read_only()),
    ];
    let views = told.into_iter().map(|(path, facts, read_only)| DatabaseView {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: facts.bytes,
        schema: facts.schema,
        newest_schema: facts.newest,
        read_only,
    });
    Ok(views.collect())
}

fn without_secret(view: SettingView) -> SettingView {
    let private = PRIVATE_SETTINGS.contains(&view.key.as_str());
    // What names a variable or a file is no secret.
    let named = view.key.ends_with("_env") || view.key.ends_with("_file");
    let secret = SECRET_WORDS.iter().any(|word| view.key.contains(word)) && !named;
    let value = if (private || secret) && !view.value.is_empty() { HIDDEN.to_owned() } else { redact(&view.value) };
    SettingView { value, ..view }
}

fn facts(view: crate::types::engine::EngineView) -> EngineFacts {
    EngineFacts {
        id: view.record.id,
        kind: view.record.kind.as_str().to_owned(),
        url: redact(&view.record.url),
        version: view.version,
        state: view.state,
        models: view.models,
        with_key: view.record.api_key_env.is_some(),
    }
}

async fn counts(context: &Context) -> Outcome<HomeCounts> {
    let now = context.clock.wall();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let keys = context.stores.security.keys().await?;
    let ended =
        keys.iter().filter(|key| key.view.revoked.is_some() || key.view.expires.is_some_and(|expires| expires <= now));
    let ended = ended.count();
    Ok(HomeCounts {
        keys: count(keys.len() - ended),
        keys_ended: count(ended),
        aliases: count(context.stores.config.aliases().await?.len()),
        profiles: count(context.stores.config.profiles().await?.len()),
        prompts: count(context.stores.config.prompts().await?.len()),
        blocks: count(context.stores.security.blocks(now).await?.len()),
    })
}

/// The last warnings and errors of the log, newest last.
fn last_troubles(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for path in logging::log_files_in(folder).into_iter().rev() {
        // A log that cannot be read tells nothing; that it cannot is told by its mode.
        let Ok(content) = files::read_tail(&path, LOG_BYTES) else { continue };
        let text = String::from_utf8_lossy(&content);
        let troubles = text
            .lines()
            .rev()
            .filter(|line| line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\""));
        lines.extend(troubles.take(LOG_LINES - lines.len()).map(shown));
        if lines.len() == LOG_LINES {
            break;
        }
    }
    lines.reverse();
    lines
}

/// One line of the log as a person reads it: time, level, message and fields.
fn shown(line: &str) -> String {
    let text = match serde_json::from_str::<serde_json::Value>(line) {
        Ok(entry) => {
            let text = |name: &str| entry.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            let fields = entry.get("fields").and_then(serde_json::Value::as_object);
            let fields = fields.into_iter().flatten().map(|(name, value)| match (name.as_str(), value.as_str()) {
                ("message", Some(message)) => message.to_owned(),
                (name, Some(value)) => format!("{name}={value}"),
                (name, None) => format!("{name}={value}"),
            });
            let fields: Vec<_> = fields.collect();
            format!("{} {} {}: {}", text("timestamp"), text("level"), text("target"), fields.join(" "))
        }
        Err(_half_a_line) => line.to_owned(),
    };
    escape(&redact(&text)).chars().take(LINE_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::files::Audience;
    use crate::types::calls::settings::{ReloadClass, SettingSource};

    #[test]
    fn the_last_troubles_of_the_log_are_told_without_secrets() {
        let folder = tempfile::tempdir().expect("folder");
        let line = |level: &str, message: &str| {
            format!(r#"{{"timestamp":"T","level":"{level}","fields":{{"message":"{message}","n":1}},"target":"flm"}}"#)
        };
        let old: Vec<_> = (0..30).map(|number| line("WARN", &format!("old {number}"))).collect();
        let new = [line("INFO", "fine"), line("ERROR", "key flm_Ab12Cd34_secret refused"), line("WARN", "last")];
        for (name, lines) in [("flm.2026-01-01.log", old.join("\n")), ("flm.2026-01-02.log", new.join("\n"))] {
            files::replace(&folder.path().join(name), lines.as_bytes(), Audience::Owner).expect("writes");
        }
        let told = last_troubles(folder.path());
        assert_eq!(told.len(), LOG_LINES);
        assert_eq!(told[0], "T WARN flm: old 12 n=1");
        assert_eq!(told[LOG_LINES - 2], "T ERROR flm: key (hidden) refused n=1");
        assert_eq!(told[LOG_LINES - 1], "T WARN flm: last n=1");
        assert_eq!(last_troubles(&folder.path().join("nowhere")), Vec::<String>::new());
    }

    #[test]
    fn settings_that_could_tell_a_secret_are_hidden() {
        let view = |key: &str, value: &str| SettingView {
            key: key.into(),
            value: value.into(),
            default: String::new(),
            unit: String::new(),
            doc: String::new(),
            source: SettingSource::File,
            reload: ReloadClass::Live,
        };
        for (key, value, told) in [
            ("egress.user", "anna", HIDDEN),
            ("egress.user", "", ""),
            ("alerts.ntfy_token", "abc", HIDDEN),
            ("egress.password_env", "TOR_PASSWORD", "TOR_PASSWORD"),
            ("proxy.bind", "127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(without_secret(view(key, value)).value, told, "{key}");
        }
    }
}
