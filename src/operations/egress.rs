//! The way out: from settings to [`Egress`], and its proof when an owner starts (SPEC §7).

use std::path::Path;

use super::context::Context;
use crate::config::files;
use crate::config::kinds::host_and_port;
use crate::config::settings::Settings;
use crate::config::table::{self, Definition};
use crate::net::egress::{Egress, EgressEvent, ProxyConfig};
use crate::net::socks5::Credentials;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::settings::SettingSource;
use crate::types::clock::Clock;
use crate::types::egress::{EgressMode, OnOutage};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::secret::Secret;

/// Where a Tor client listens (torrc(5), `SocksPort`).
const TOR_ENDPOINT: (&str, u16) = ("127.0.0.1", 9050);
/// A password has at most 255 bytes (RFC 1929 §2).
const LARGEST_FILE: u64 = 64 << 10;

/// The way out that the settings describe. Reads the password's file: call it off the runtime.
///
/// # Errors
/// `CONFIG_NOT_SET` without an endpoint, `PROXY_INVALID_CONFIG` for what does not fit together, `IO_ERROR` for a password file
/// that cannot be read.
pub(super) fn build(settings: &Settings, variable: impl Fn(&str) -> Option<String>, clock: &Clock) -> Outcome<Egress> {
    let mode = match settings.get(table::EGRESS_MODE) {
        "tor" => EgressMode::Tor,
        "socks5" => EgressMode::Socks5,
        _ => return straight(settings),
    };
    let endpoint = settings.get(table::EGRESS_SOCKS5_ENDPOINT);
    let (host, port) = match (host_and_port(&endpoint), mode) {
        (Some(endpoint), _) => endpoint,
        (None, EgressMode::Tor) => TOR_ENDPOINT,
        (None, _) => {
            let why = "egress.mode is socks5, but nothing says where that proxy listens";
            return Err(Failure::new(ErrorCode::ConfigNotSet, why)
                .hint("name it: flm proxy start --egress-mode socks5 --socks5-endpoint 127.0.0.1:1080"));
        }
    };
    let on_outage = if settings.get(table::EGRESS_FAIL_OPEN) { OnOutage::GoDirect } else { OnOutage::Refuse };
    let credentials = credentials(settings, variable)?;
    Ok(Egress::through(ProxyConfig { mode, host: host.to_owned(), port, credentials, on_outage }, clock.clone()))
}

/// Without a word only where nobody named a proxy for this run: who did means to go through it.
fn straight(settings: &Settings) -> Outcome<Egress> {
    let by_flag =
        |definition: &Definition| settings.view(definition.key).is_ok_and(|view| view.source == SettingSource::Flag);
    let named = [
        table::EGRESS_SOCKS5_ENDPOINT.definition,
        table::EGRESS_USER.definition,
        table::EGRESS_PASSWORD_ENV.definition,
        table::EGRESS_PASSWORD_FILE.definition,
    ];
    match named.into_iter().find(|definition| by_flag(definition)) {
        Some(Definition { key, .. }) if !by_flag(table::EGRESS_MODE.definition) => {
            Err(wrong(format!("{key} is given for a proxy, but egress.mode is direct: everything would go past it"))
                .hint("choose it: --egress-mode socks5 or tor"))
        }
        _ => Ok(Egress::direct()),
    }
}

fn credentials(settings: &Settings, variable: impl Fn(&str) -> Option<String>) -> Outcome<Option<Credentials>> {
    let user = settings.get(table::EGRESS_USER);
    let name = settings.get(table::EGRESS_PASSWORD_ENV);
    let path = settings.get(table::EGRESS_PASSWORD_FILE);
    let password = match (name.as_str(), path.as_str()) {
        ("", "") if user.is_empty() => return Ok(None),
        ("", "") => {
            return Err(wrong("egress.user is set, but no password")
                .hint("name where it is: --socks5-password-env VARIABLE or --socks5-password-file FILE"));
        }
        (name, "") => variable(name).map(Secret::new).ok_or_else(|| {
            wrong(format!("the variable {name}, which is to hold the proxy's password, is not set"))
                .hint("set it where FLM is started, or name a file with --socks5-password-file FILE")
        })?,
        ("", path) => read_password(Path::new(path))?,
        (_, _) => {
            return Err(wrong("egress.password_env and egress.password_file are both set")
                .hint("keep one of them: flm config unset egress.password_env"));
        }
    };
    let made = Credentials::new(Secret::new(user), password);
    made.map(Some).map_err(|error| wrong(error.to_string()).hint("set egress.user, and check the password's length"))
}

fn read_password(path: &Path) -> Outcome<Secret> {
    let content = zeroize::Zeroizing::new(files::read_limited(path, LARGEST_FILE)?);
    let first = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(Secret::new(String::from_utf8_lossy(first).trim_end_matches('\r').to_owned()))
}

fn wrong(why: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::ProxyInvalidConfig, why)
}

/// Proves the proxy when an owner starts, and records when everything goes straight because it cannot be reached.
///
/// # Errors
/// `PROXY_INVALID_CONFIG` when it cannot be reached and nothing is to go straight: the owner must not start.
pub async fn prove(context: &Context) -> Outcome<()> {
    let mode = context.egress.status().mode;
    context.egress.prove().await.map_err(|error| {
        let why = format!("everything is to leave through {}, but {error}", mode.name());
        wrong(why).hint(format!(
            "{}; or go straight with --egress-mode direct, or straight only while it is away with --egress-fail-open",
            error.hint()
        ))
    })?;
    record_events(context).await;
    Ok(())
}

/// Records what happened to the proxy since the last call; answers whether anything did.
pub async fn record_events(context: &Context) -> bool {
    let events = context.egress.take_events();
    for event in &events {
        let (kind, severity, details) = match event {
            EgressEvent::Unreachable(why) => (
                AuditKind::TorUnreachable,
                Severity::High,
                format!("tor_unreachable: the egress proxy cannot be reached, connections to the world fail: {why}"),
            ),
            EgressEvent::FellBack(why) => (
                AuditKind::EgressFailOpenTriggered,
                Severity::Critical,
                format!(
                    "egress_fail_open_triggered: the egress proxy cannot be reached, connections go straight: {why}"
                ),
            ),
            EgressEvent::Recovered => (
                AuditKind::EgressRecovered,
                Severity::Low,
                "the egress proxy can be reached again, connections go through it".to_owned(),
            ),
        };
        tracing::warn!(details, "egress");
        context.record(kind, severity, details).await;
    }
    !events.is_empty()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::settings::SettingLayers;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let flags: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::build(&SettingLayers { flags, ..SettingLayers::default() }).expect("builds")
    }

    fn built(pairs: &[(&str, &str)]) -> Outcome<Egress> {
        let variable = |name: &str| (name == "SOCKS_PASSWORD").then(|| "hunter2".to_owned());
        build(&settings(pairs), variable, &Clock::system())
    }

    #[test]
    fn tor_has_a_default_endpoint_and_another_proxy_must_be_named() {
        assert!(built(&[]).expect("direct").is_direct());
        let tor = built(&[("egress.mode", "tor")]).expect("tor").status();
        assert_eq!((tor.mode, tor.endpoint.as_deref()), (EgressMode::Tor, Some("127.0.0.1:9050")));
        let other = built(&[("egress.mode", "socks5"), ("egress.socks5_endpoint", "[::1]:1080")]).expect("socks5");
        assert_eq!(other.status().endpoint.as_deref(), Some("[::1]:1080"));
        let failure = built(&[("egress.mode", "socks5")]).expect_err("where?");
        assert_eq!(failure.code, ErrorCode::ConfigNotSet);
        assert!(failure.hint.expect("a hint").contains("--socks5-endpoint"));
    }

    /// Whoever names a proxy and forgets to choose it would go straight without a word.
    #[test]
    fn a_proxy_that_is_named_for_a_run_and_not_used_is_refused() {
        for given in [
            ("egress.socks5_endpoint", "127.0.0.1:1"),
            ("egress.user", "ada"),
            ("egress.password_env", "SOCKS_PASSWORD"),
            ("egress.password_file", "/nowhere"),
        ] {
            let failure = built(&[given]).expect_err(given.0);
            assert_eq!(failure.code, ErrorCode::ProxyInvalidConfig);
            assert!(failure.message.contains(given.0), "{failure:?}");
            assert!(failure.hint.expect("a hint").contains("--egress-mode"));
            assert!(built(&[("egress.mode", "direct"), given]).expect("so it is wanted").is_direct());
        }
        let database = BTreeMap::from([("egress.socks5_endpoint".to_owned(), "127.0.0.1:1".to_owned())]);
        let stored = Settings::build(&SettingLayers { database, ..SettingLayers::default() }).expect("builds");
        assert!(build(&stored, |_| None, &Clock::system()).expect("kept for later").is_direct());
    }

    #[test]
    fn a_password_comes_from_one_variable_or_one_file_and_is_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        files::replace(&path, b"hunter2\n", files::Audience::Owner).expect("writes");
        let path = path.to_str().expect("UTF-8");
        let socks = [("egress.mode", "socks5"), ("egress.socks5_endpoint", "127.0.0.1:1"), ("egress.user", "ada")];
        let with = |more: &[(&str, &str)]| built(&[&socks[..], more].concat());
        for given in [("egress.password_env", "SOCKS_PASSWORD"), ("egress.password_file", path)] {
            let egress = with(&[given]).expect("builds");
            let told = format!("{egress:?} {:?}", egress.status());
            assert!(!told.contains("hunter2") && !told.contains("ada"), "{told}");
        }
        for (given, expected) in [
            (vec![], "no password"),
            (vec![("egress.password_env", "OTHER")], "OTHER"),
            (vec![("egress.password_file", "/nowhere/at/all")], "/nowhere/at/all"),
            // As a pipe it would be waited for, by a daemon that holds its home meanwhile.
            (vec![("egress.password_file", "/dev/zero")], "not a regular file"),
            (vec![("egress.password_env", "SOCKS_PASSWORD"), ("egress.password_file", path)], "both set"),
        ] {
            let failure = with(&given).expect_err(expected);
            assert!(failure.message.contains(expected), "{}", failure.message);
            assert!(failure.hint.is_some());
        }
    }
}
