//! The settings table: every setting of FLM, one entry each (SPEC §1.4).
//!
//! Read by `config::settings`, and through it by `flm config list`, the console's form and the documentation. A
//! setting that nobody reads is a lie: an entry comes with the code that honours it.

use std::marker::PhantomData;
use std::time::Duration;

use super::kinds::{Kind, Rule, Value};
use crate::types::calls::settings::ReloadClass;
use crate::types::language;

/// What the table says about one setting.
#[derive(Debug)]
pub struct Definition {
    /// Dotted name.
    pub key: &'static str,
    /// What it may hold, and its default.
    pub kind: Kind,
    /// Unit of a bare number, such as "ms"; empty where the value carries its unit or has none.
    pub unit: &'static str,
    /// When a change takes effect.
    pub reload: ReloadClass,
    /// For people; may start with a space for each line it was written on.
    doc: &'static str,
}

impl Definition {
    /// One line for people.
    #[must_use]
    pub fn doc(&self) -> &'static str {
        self.doc.trim()
    }

    /// Name of the environment variable: `FLM_` and the key in upper case with `_` for `.`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("FLM_{}", self.key.to_uppercase().replace('.', "_"))
    }
}

/// A setting whose value has type `T`: what `Settings::get` takes.
#[derive(Debug)]
pub struct Setting<T> {
    /// Its entry in the table.
    pub definition: &'static Definition,
    value: PhantomData<fn() -> T>,
}

// Not derived: a setting is copied whatever its value's type.
impl<T> Clone for Setting<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Setting<T> {}

/// A type that a setting's value can be read as.
pub trait Readable: Default {
    /// Reads the value; `None` when it is of another kind.
    fn read(value: &Value) -> Option<Self>;
}

/// Writes [`Readable`] for a type: `readable!(bool, Switch(on) => *on)`.
macro_rules! readable {
    ($type:ty, $variant:ident($value:ident) => $read:expr) => {
        impl Readable for $type {
            fn read(value: &Value) -> Option<Self> {
                match value {
                    Value::$variant($value) => Some($read),
                    _ => None,
                }
            }
        }
    };
}
readable!(bool, Switch(on) => *on);
readable!(u32, Count(count) => *count);
readable!(u64, Size(size) => *size);
readable!(Duration, Span(span) => *span);
readable!(&'static str, Choice(word) => word);
readable!(String, Text(text) => text.clone());
readable!(Vec<String>, List(items) => items.clone());

const fn switch(default: bool) -> Kind {
    Kind::Switch { default }
}

const fn count(default: u32, least: u32, most: u32) -> Kind {
    Kind::Count { default, least, most }
}

/// All three in seconds.
const fn span(default: u64, least: u64, most: u64) -> Kind {
    Kind::Span {
        default: Duration::from_secs(default),
        least: Duration::from_secs(least),
        most: Duration::from_secs(most),
    }
}

/// All three in bytes.
const fn size(default: u64, least: u64, most: u64) -> Kind {
    Kind::Size { default, least, most }
}

const fn choice(default: &'static str, words: &'static [&'static str]) -> Kind {
    Kind::Choice { default, words }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

/// Declares settings as typed constants and collects them in [`SETTINGS`].
macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:ident: $type:ty = $key:literal, $kind:expr, $unit:literal, $reload:ident; )+) => {
        $(
            $(#[doc = $doc])+
            pub const $name: Setting<$type> = Setting {
                definition: &Definition {
                    key: $key,
                    kind: $kind,
                    unit: $unit,
                    reload: ReloadClass::$reload,
                    doc: concat!($($doc),+),
                },
                value: PhantomData,
            };
        )+

        /// Every setting, sorted by key.
        pub const SETTINGS: &[&Definition] = &[$($name.definition),+];

        #[cfg(test)]
        fn types_that_do_not_fit() -> Vec<&'static str> {
            let mut wrong = Vec::new();
            $( if <$type as Readable>::read(&$name.definition.kind.default_value()).is_none() { wrong.push($key); } )+
            wrong
        }
    };
}

settings! {
    /// Whether the terms of the ACME directory are accepted, which it wants (Let's Encrypt: letsencrypt.org/repository).
    ACME_AGREE_TOS: bool = "acme.agree_tos", switch(false), "", Live;
    /// Serve a self-signed certificate, with a loud warning, while the ACME directory has never given one.
    ACME_ALLOW_SELFSIGNED: bool = "acme.allow_selfsigned", switch(false), "", Live;
    /// File of root certificates (PEM) that the ACME directory is trusted by; empty takes the system's.
    ACME_CA_FILE: String = "acme.ca_file", Kind::Text { default: "", rule: Rule::AbsolutePath }, "", Live;
    /// How the directory checks the domains: by a request to port 80, or by a TXT record.
    ACME_CHALLENGE: &'static str = "acme.challenge", choice("http-01", &["http-01", "dns-01"]), "", Live;
    /// Mail addresses that the directory may write to about certificates.
    ACME_CONTACT: Vec<String> = "acme.contact", Kind::List { rule: Rule::Mail }, "", Live;
    /// URL of the ACME directory; empty is Let's Encrypt, whose staging directory is used unless acme.production is true.
    ACME_DIRECTORY: String = "acme.directory", Kind::Text { default: "", rule: Rule::ServiceUrl }, "", Live;
    /// Subdomain that the acme-dns server gave when the account there was made.
    ACME_DNS_ACME_DNS_SUBDOMAIN: String =
        "acme.dns.acme_dns_subdomain", Kind::Text { default: "", rule: Rule::UserName }, "", Live;
    /// URL of the acme-dns server.
    ACME_DNS_ACME_DNS_URL: String =
        "acme.dns.acme_dns_url", Kind::Text { default: "", rule: Rule::ServiceUrl }, "", Live;
    /// Program that sets and removes TXT records: called with present or cleanup, the record's name and its value.
    ACME_DNS_COMMAND: String = "acme.dns.command", Kind::Text { default: "", rule: Rule::AbsolutePath }, "", Live;
    /// How long the TXT record may take until the zone's name servers tell it.
    ACME_DNS_PROPAGATION_TIMEOUT: Duration = "acme.dns.propagation_timeout", span(120, 1, HOUR), "", Live;
    /// Who sets the TXT record of the challenge dns-01.
    ACME_DNS_PROVIDER: &'static str =
        "acme.dns.provider", choice("exec", &["exec", "rfc2136", "acme-dns", "cloudflare"]), "", Live;
    /// Name servers that are asked whether the TXT record is there; empty asks those of the zone.
    ACME_DNS_RESOLVERS: Vec<String> = "acme.dns.resolvers", Kind::List { rule: Rule::Endpoint }, "", Live;
    /// Name server that takes signed changes (RFC 2136).
    ACME_DNS_RFC2136_SERVER: String =
        "acme.dns.rfc2136_server", Kind::Text { default: "", rule: Rule::Endpoint }, "", Live;
    /// Environment variable with the secret of the DNS provider: TSIG key (base64), acme-dns password or Cloudflare token.
    ACME_DNS_SECRET_ENV: String = "acme.dns.secret_env", Kind::Text { default: "", rule: Rule::Variable }, "", Live;
    /// File whose first line is that secret; mode 0600.
    ACME_DNS_SECRET_FILE: String =
        "acme.dns.secret_file", Kind::Text { default: "", rule: Rule::AbsolutePath }, "", Live;
    /// How changes by RFC 2136 are signed.
    ACME_DNS_TSIG_ALGORITHM: &'static str =
        "acme.dns.tsig_algorithm", choice("hmac-sha256", &["hmac-sha256", "hmac-sha512"]), "", Live;
    /// Name of the TSIG key, or user at the acme-dns server.
    ACME_DNS_USER: String = "acme.dns.user", Kind::Text { default: "", rule: Rule::UserName }, "", Live;
    /// Domains that the certificate is for; a wildcard needs the challenge dns-01.
    ACME_DOMAINS: Vec<String> = "acme.domains", Kind::List { rule: Rule::Domain }, "", Live;
    /// Environment variable with the HMAC key (base64url) of the external account, for directories that want one.
    ACME_EAB_HMAC_ENV: String = "acme.eab.hmac_env", Kind::Text { default: "", rule: Rule::Variable }, "", Live;
    /// File whose first line is that HMAC key; mode 0600.
    ACME_EAB_HMAC_FILE: String = "acme.eab.hmac_file", Kind::Text { default: "", rule: Rule::AbsolutePath }, "", Live;
    /// Key id of the external account.
    ACME_EAB_KEY_ID: String = "acme.eab.key_id", Kind::Text { default: "", rule: Rule::UserName }, "", Live;
    /// Ask Let's Encrypt for certificates that everybody trusts; its limits are tight, so try with the staging directory first.
    ACME_PRODUCTION: bool = "acme.production", switch(false), "", Live;
    /// How long the inbox of the console and the list of deliveries keep alerts.
    ALERTS_KEEP: Duration = "alerts.keep", span(30 * DAY, HOUR, 3_650 * DAY), "", Live;
    /// How long the audit log keeps its rows; older ones are archived: an anchor stands for them.
    AUDIT_KEEP: Duration = "audit.keep", span(90 * DAY, DAY, 3_650 * DAY), "", Live;
    /// How large the audit log may become before its oldest rows are archived.
    AUDIT_SIZE: u64 = "audit.size", size(2_048 * MIB, MIB, 1_048_576 * MIB), "", Live;
    /// Make a backup of both databases once a day; the home keeps the newest three.
    BACKUP_DAILY: bool = "backup.daily", switch(true), "", Live;
    /// Draw with ASCII characters only: auto does so where the locale is not UTF-8.
    CONSOLE_ASCII: &'static str = "console.ascii", choice("auto", &["auto", "on", "off"]), "", Live;
    /// Turn a sign while something is waited for; off leaves the seconds, and the console draws once in a second then.
    CONSOLE_MOTION: bool = "console.motion", switch(true), "", Live;
    /// Take mouse clicks and the wheel; hold Shift to select text as the terminal does. In GNU screen only where it is set.
    CONSOLE_MOUSE: bool = "console.mouse", switch(true), "", Live;
    /// How the console's terminal calls for an alert: the bell, a message of the desktop (OSC 9), both, or off.
    CONSOLE_NOTIFY: &'static str = "console.notify", choice("both", &["off", "bell", "message", "both"]), "", Live;
    /// What happens to the proxy when the terminal goes away: it stays in the background, or it stops.
    CONSOLE_ON_HANGUP: &'static str = "console.on_hangup", choice("background", &["background", "stop"]), "", Live;
    /// Most frames the console draws in a second; it draws only when something changed.
    CONSOLE_REFRESH: u32 = "console.refresh", count(10, 1, 60), "frames/s", Live;
    /// Name of the colour theme: a file in FLM's own themes or in the themes folder beside flm.toml.
    CONSOLE_THEME: String = "console.theme", Kind::Text { default: "dark", rule: Rule::Name }, "", Live;
    /// Web origins whose pages may call the proxy; empty allows none, and credentials are never allowed.
    CORS_ALLOWED_ORIGINS: Vec<String> = "cors.allowed_origins", Kind::List { rule: Rule::Origin }, "", Live;
    /// Go straight while the egress proxy cannot be reached, instead of refusing to; the audit log tells it.
    EGRESS_FAIL_OPEN: bool = "egress.fail_open", switch(false), "", Restart;
    /// How what leaves this machine does so: straight, through a Tor client, or through another SOCKS5 proxy.
    EGRESS_MODE: &'static str = "egress.mode", choice("direct", &["direct", "tor", "socks5"]), "", Restart;
    /// Environment variable that holds the password of the egress proxy.
    EGRESS_PASSWORD_ENV: String = "egress.password_env", Kind::Text { default: "", rule: Rule::Variable }, "", Restart;
    /// File whose first line is the password of the egress proxy.
    EGRESS_PASSWORD_FILE: String =
        "egress.password_file", Kind::Text { default: "", rule: Rule::AbsolutePath }, "", Restart;
    /// Where the egress proxy listens; tor uses 127.0.0.1:9050 when this is empty.
    EGRESS_SOCKS5_ENDPOINT: String =
        "egress.socks5_endpoint", Kind::Text { default: "", rule: Rule::Endpoint }, "", Restart;
    /// User name at the egress proxy; empty when it wants none.
    EGRESS_USER: String = "egress.user", Kind::Text { default: "", rule: Rule::UserName }, "", Restart;
    /// A conversation stays with the engine that served it, as long as that has a free slot: its cache is warm.
    ENGINE_AFFINITY: bool = "engine.affinity", switch(true), "", Live;
    /// How often the health of every engine is checked.
    ENGINE_CHECK_INTERVAL: Duration = "engine.check_interval", span(10, 1, HOUR), "", Live;
    /// Failures in a row after which a model of an engine gets no requests for a while; 0 is never.
    ENGINE_CIRCUIT_FAILURES: u32 = "engine.circuit_failures", count(5, 0, 1_000), "failures", Live;
    /// Look for engines on this machine when the proxy or the console starts; asking for a detection always works.
    ENGINE_DETECT_AT_START: bool = "engine.detect_at_start", switch(true), "", Restart;
    /// How long a detection counts as current.
    ENGINE_DETECTION_CACHE: Duration = "engine.detection_cache", span(300, 0, DAY), "", Live;
    /// How long the first byte of an engine's answer may take.
    ENGINE_FIRST_BYTE_TIMEOUT: Duration = "engine.first_byte_timeout", span(300, 1, DAY), "", Live;
    /// How long an engine may be silent within an answer.
    ENGINE_GAP_TIMEOUT: Duration = "engine.gap_timeout", span(120, 1, DAY), "", Live;
    /// A health check that takes this long or longer makes an engine count as degraded.
    ENGINE_HEALTH_LATENCY_THRESHOLD_MS: u32 =
        "engine.health_latency_threshold_ms", count(1_500, 1, 600_000), "ms", Live;
    /// Unload models that FLM loaded and that nobody used for this long; 0 is never.
    ENGINE_IDLE_UNLOAD: Duration = "engine.idle_unload", span(0, 0, 30 * DAY), "", Live;
    /// Load a model that its engine has, but not in memory, before a request for it is sent.
    ENGINE_LOAD_ON_DEMAND: bool = "engine.load_on_demand", switch(true), "", Live;
    /// Connection failures in a row after which an engine counts as unreachable.
    ENGINE_MAX_NETWORK_FAILURES: u32 = "engine.max_network_failures", count(3, 1, 1_000), "failures", Live;
    /// Requests that may wait for a free slot of one engine or model; more get 429.
    ENGINE_QUEUE_LENGTH: u32 = "engine.queue_length", count(64, 0, 100_000), "requests", Live;
    /// How long a request may wait for a free slot before it gets 429.
    ENGINE_QUEUE_WAIT: Duration = "engine.queue_wait", span(120, 1, DAY), "", Live;
    /// Requests that an engine runs at once when neither it nor its registration tells (flm engines add --slots).
    ENGINE_SLOTS: u32 = "engine.slots", count(4, 1, 100_000), "requests", Live;
    /// Who reaches the proxy: local lets keys and limits guard alone, public switches everything on, auto decides by
    /// what is seen.
    GUARD_EXPOSURE: &'static str = "guard.exposure", choice("auto", &["auto", "local", "public"]), "", Live;
    /// Whether revoking a key also ends the streams that it started.
    KEYS_REVOKE_ENDS_STREAMS: bool = "keys.revoke_ends_streams", switch(true), "", Live;
    /// Open client connections in all; more get 503.
    LIMITS_CONNECTIONS: u32 = "limits.connections", count(4_096, 1, 1_000_000), "connections", Live;
    /// Open client connections of one address; more are refused.
    LIMITS_CONNECTIONS_PER_ADDRESS: u32 =
        "limits.connections_per_address", count(256, 1, 1_000_000), "connections", Live;
    /// How much is logged.
    LOG_LEVEL: &'static str = "log.level", choice("info", &["error", "warn", "info", "debug", "trace"]), "", Live;
    /// Parts of FLM that are logged more or less than the rest, such as proxy=debug; libraries only warn in any case.
    LOG_TARGETS: Vec<String> = "log.targets", Kind::List { rule: Rule::LogTarget }, "", Live;
    /// Largest audio file of an upload.
    MEDIA_AUDIO_LIMIT: u64 = "media.audio_limit", size(25 * MIB, KIB, 1_024 * MIB), "", Live;
    /// Fetch images that requests name by address, from public hosts only; no engine ever does. Off refuses such requests.
    MEDIA_FETCH_REMOTE: bool = "media.fetch_remote", switch(false), "", Live;
    /// How long fetching all images of one request may take.
    MEDIA_FETCH_TIMEOUT: Duration = "media.fetch_timeout", span(10, 1, 300), "", Live;
    /// Largest image, decoded: in a request, in a form, or fetched.
    MEDIA_IMAGE_LIMIT: u64 = "media.image_limit", size(8 * MIB, KIB, 1_024 * MIB), "", Live;
    /// Language of the console: auto takes the system's, else English.
    PREFERRED_LANGUAGE: &'static str = "preferred_language", choice("auto", language::CHOICES), "", Live;
    /// Names under which the proxy may be called besides its own names and addresses.
    PROXY_ALLOWED_HOSTS: Vec<String> = "proxy.allowed_hosts", Kind::List { rule: Rule::Host }, "", Live;
    /// Address to listen on when the proxy is started without naming one.
    PROXY_BIND: String = "proxy.bind", Kind::Text { default: "127.0.0.1", rule: Rule::Address }, "", Restart;
    /// How long a request's body may make no progress.
    PROXY_BODY_IDLE_TIMEOUT: Duration = "proxy.body_idle_timeout", span(30, 1, HOUR), "", Live;
    /// Largest JSON body of a request.
    PROXY_BODY_LIMIT: u64 = "proxy.body_limit", size(32 * MIB, KIB, 1_024 * MIB), "", Live;
    /// File of the certificate chain (PEM) that the mode certificate-files serves when none is named.
    PROXY_CERTIFICATE_FILE: String = "proxy.certificate_file", Kind::Text { default: "", rule: Rule::AbsolutePath }, "", Restart;
    /// How long streams may go on after the proxy is told to stop.
    PROXY_DRAIN_TIMEOUT: Duration = "proxy.drain_timeout", span(30, 0, HOUR), "", Live;
    /// How long a new connection may take for its first byte.
    PROXY_FIRST_BYTE_TIMEOUT: Duration = "proxy.first_byte_timeout", span(5, 1, HOUR), "", Live;
    /// Largest head of a request: request line and headers together.
    PROXY_HEAD_LIMIT: u64 = "proxy.head_limit", size(32 * KIB, 8 * KIB, MIB), "", Restart;
    /// How long the whole head of a request may take.
    PROXY_HEAD_TIMEOUT: Duration = "proxy.head_timeout", span(10, 1, HOUR), "", Live;
    /// How long a waiting stream is silent before it is answered with a comment line, and between such lines.
    PROXY_HEARTBEAT_INTERVAL: Duration = "proxy.heartbeat_interval", span(10, 1, 300), "", Live;
    /// Port for TLS when the proxy is started without naming one; 0 is the port after proxy.port.
    PROXY_HTTPS_PORT: u32 = "proxy.https_port", count(0, 0, 65_535), "", Restart;
    /// How long an idle connection is kept open for the next request.
    PROXY_KEEP_ALIVE_TIMEOUT: Duration = "proxy.keep_alive_timeout", span(75, 1, HOUR), "", Live;
    /// File of the private key (PEM, mode 0600) that the certificate file belongs to.
    PROXY_KEY_FILE: String = "proxy.key_file", Kind::Text { default: "", rule: Rule::AbsolutePath }, "", Restart;
    /// How clients reach the proxy when it is started without naming a mode.
    PROXY_MODE: String = "proxy.mode", Kind::Text { default: "local-http", rule: Rule::Name }, "", Restart;
    /// Port to listen on when the proxy is started without naming one.
    PROXY_PORT: u32 = "proxy.port", count(8_484, 1, 65_535), "", Restart;
    /// Threads that serve requests; 0 is one for each core.
    PROXY_WORKERS: u32 = "proxy.workers", count(0, 0, 1_024), "threads", Restart;
    /// How long the request log keeps a request.
    REQUEST_LOG_KEEP: Duration = "request_log.keep", span(7 * DAY, HOUR, 365 * DAY), "", Live;
    /// How many requests the request log keeps; the oldest go first.
    REQUEST_LOG_ROWS: u32 = "request_log.rows", count(1_000_000, 0, 100_000_000), "requests", Live;
    /// Networks that the own certificate authority may vouch for besides this machine's addresses; empty is the private
    /// ones. Asked when it is made.
    TLS_CA_NETWORKS: Vec<String> = "tls.ca_networks", Kind::List { rule: Rule::Network }, "", Live;
    /// How long a client may take for the TLS handshake.
    TLS_HANDSHAKE_TIMEOUT: Duration = "tls.handshake_timeout", span(10, 1, HOUR), "", Live;
    /// How long browsers are told to call this name by https only; in the mode https-acme on port 443. 0 tells nothing.
    TLS_HSTS: Duration = "tls.hsts", span(0, 0, 2 * 366 * DAY), "", Live;
    /// Where traces go: an OpenTelemetry collector that takes OTLP over HTTP on port 4318; empty exports none.
    TRACES_ENDPOINT: String = "traces.endpoint", Kind::Text { default: "", rule: Rule::ServiceUrl }, "", Live;
    /// Environment variable with headers for that collector, as NAME=VALUE,NAME=VALUE with percent-encoded values.
    TRACES_HEADERS_ENV: String = "traces.headers_env", Kind::Text { default: "", rule: Rule::Variable }, "", Live;
    /// How many of a hundred requests are traced, besides those whose client records them (traceparent).
    TRACES_SAMPLE_PERCENT: u32 = "traces.sample_percent", count(100, 0, 100), "%", Live;
    /// Proxies in front of FLM that may tell the client's address; empty believes nobody.
    TRUSTED_PROXIES: Vec<String> = "trusted_proxies", Kind::List { rule: Rule::Network }, "", Live;
    /// Header in which a trusted proxy tells the client's address.
    TRUSTED_PROXY_HEADER: &'static str =
        "trusted_proxy_header",
        choice("x-forwarded-for", &["x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "none"]),
        "", Live;
    /// Whether every connection of a trusted proxy begins with the PROXY protocol, version 1 or 2.
    TRUSTED_PROXY_PROTOCOL: &'static str = "trusted_proxy_protocol", choice("off", &["off", "required"]), "", Live;
    /// How long usage is kept, hour by hour; budgets need the current day.
    USAGE_KEEP: Duration = "usage.keep", span(400 * DAY, 2 * DAY, 3_650 * DAY), "", Live;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_constant_has_the_type_of_its_kind() {
        assert_eq!(types_that_do_not_fit(), Vec::<&str>::new());
    }

    #[test]
    fn keys_are_sorted_and_neither_keys_nor_variables_collide() {
        let keys: Vec<_> = SETTINGS.iter().map(|d| d.key).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        let variables: BTreeSet<_> = SETTINGS.iter().map(|d| d.variable()).collect();
        assert_eq!(variables.len(), SETTINGS.len());
        // Variables with another meaning (SPEC §1.3, §5.12).
        assert!(!variables.contains("FLM_HOME") && !variables.contains("FLM_DB_KEY_FILE"));
    }

    #[test]
    fn every_default_fits_its_own_rule_and_every_setting_is_documented() {
        for definition in SETTINGS {
            let default = definition.kind.default_value();
            assert_eq!(definition.kind.parse(&default.show()), Some(default), "{}", definition.key);
            assert!(definition.doc().ends_with('.') && !definition.doc().contains('\n'), "{}", definition.key);
        }
    }

    /// The rows of docs/configuration.md as they must be.
    fn documented() -> String {
        use std::fmt::Write as _;

        let mut rows = String::new();
        for definition in SETTINGS {
            let default = match definition.kind.default_value().show() {
                empty if empty.is_empty() => "none".to_owned(),
                text if definition.unit.is_empty() => format!("`{text}`"),
                text => format!("`{text}` {}", definition.unit),
            };
            let reload = match definition.reload {
                ReloadClass::Live => "at once",
                ReloadClass::Restart => "restart",
            };
            let (key, doc) = (definition.key, definition.doc());
            // A language that comes as one file touches no document.
            let rule = match definition.kind {
                Kind::Choice { words: language::CHOICES, .. } => "auto, or a language of the folder `i18n`".to_owned(),
                _ => definition.kind.rule(),
            };
            writeln!(rows, "| `{key}` | {default} | {reload} | {doc} | {rule} |").expect("writes");
        }
        rows
    }

    #[test]
    fn the_documentation_lists_every_setting_as_the_table_has_it() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let text = std::fs::read_to_string(path).expect("reads");
        let (_, table) = text.split_once("## Settings").expect("the heading");
        let wanted = documented();
        let told = table.lines().filter(|line| line.starts_with("| `"));
        assert!(told.eq(wanted.lines()), "put these rows into docs/configuration.md:\n{wanted}");
    }
}
