//! `Plan`: what the settings say about certificates from an ACME directory, checked before anybody is asked.

use std::path::Path;
use std::sync::Arc;

use base64ct::Encoding as _;

use super::dns_01::Hand;
use super::dns_acme_dns::AcmeDns;
use super::dns_cloudflare::Cloudflare;
use super::dns_exec::Hook;
use super::dns_rfc2136::Rfc2136;
use super::error::AcmeError;
use super::provider::Provider;
use crate::config::files::{self, KeyFile};
use crate::config::settings::Settings;
use crate::config::table::{self, Setting};
use crate::net::connect::Trust;
use crate::net::dns::message::Name;
use crate::net::dns::tsig::{Algorithm, Key};
use crate::net::dns::{DnsClient, NameServer};
use crate::net::egress::Egress;
use crate::net::web::Web;
use crate::telemetry::tasks::Tasks;
use crate::tls::error::TlsError;
use crate::tls::supply::{Supply, Variable};
use crate::types::clock::Clock;
use crate::types::secret::Secret;
use crate::types::text::escape;

/// Let's Encrypt for trying (letsencrypt.org/docs/staging-environment).
pub const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// Let's Encrypt in earnest (letsencrypt.org/docs/acme-protocol-updates).
pub const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Largest file of roots or a secret that makes sense, bytes.
const LARGEST_FILE: u64 = 256 << 10;

/// What to obtain, from whom, and how the domains are proved.
#[derive(Debug)]
pub(super) struct Plan {
    /// What the settings alone say.
    pub(super) aim: Aim,
    /// Whose certificate the directory may have.
    pub(super) trust: Trust,
    /// The external account.
    pub(super) binding: Option<Binding>,
    /// How the domains are proved.
    pub(super) challenge: Challenge,
    /// Whether a self-signed certificate is better than none.
    pub(super) allow_selfsigned: bool,
}

/// What to obtain and from whom. It needs no file and no secret to be read.
#[derive(Debug)]
pub(super) struct Aim {
    /// In lower case, each once, in the order of the setting; at least one.
    pub(super) domains: Vec<String>,
    /// Mail addresses; at least one.
    pub(super) contacts: Vec<String>,
    /// The directory's URL.
    pub(super) directory: String,
}

impl Aim {
    /// Reads them.
    ///
    /// # Errors
    /// `Incomplete` with what to type for what is missing or does not fit together.
    pub(super) fn read(settings: &Settings) -> Result<Self, TlsError> {
        let mut domains: Vec<String> = Vec::new();
        for domain in settings.get(table::ACME_DOMAINS) {
            let domain = domain.to_ascii_lowercase();
            if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        let start = "flm proxy start --mode https-acme --acme-domain llm.example.org --acme-email you@example.org --acme-agree-tos";
        if domains.is_empty() {
            return Err(incomplete("mode https-acme needs a domain", format!("name it: {start}")));
        }
        let contacts = settings.get(table::ACME_CONTACT);
        if contacts.is_empty() {
            return Err(incomplete("the ACME directory needs a mail address to write to", format!("name it: {start}")));
        }
        if !settings.get(table::ACME_AGREE_TOS) {
            return Err(incomplete(
                "the terms of the ACME directory must be accepted first",
                format!("read them (Let's Encrypt: https://letsencrypt.org/repository/), then: {start}"),
            ));
        }
        let directory = match settings.get(table::ACME_DIRECTORY) {
            given if !given.is_empty() => given,
            _ if settings.get(table::ACME_PRODUCTION) => PRODUCTION.to_owned(),
            _ => STAGING.to_owned(),
        };
        if !directory.starts_with("https://") {
            return Err(unfit(
                "acme.directory begins with http://, and the protocol runs over https only (RFC 8555 §6.1)",
                "correct it: flm config set acme.directory https://…",
            ));
        }
        Ok(Self { domains, contacts, directory })
    }

    /// Name of the certificate in the store. That of another directory or for other domains is another one: what the
    /// staging directory gave must not be taken for the real one.
    pub(super) fn stored_name(&self) -> String {
        format!("https-acme {} {}", self.directory, self.domains.join(","))
    }
}

/// An external account (RFC 8555 §7.3.4).
pub(super) struct Binding {
    pub(super) key_id: String,
    pub(super) key: zeroize::Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binding").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// How domains are proved.
#[derive(Debug)]
pub(super) enum Challenge {
    /// By a file that the plain port answers (RFC 8555 §8.3).
    Http01,
    /// By a TXT record (RFC 8555 §8.4).
    Dns01(Dns01),
}

/// How TXT records are set, and where they are looked for.
#[derive(Debug)]
pub(super) struct Dns01 {
    pub(super) provider: Arc<dyn Provider>,
    /// Asked whether a record is there; empty asks the zone's own servers.
    pub(super) resolvers: Vec<NameServer>,
    /// How long that may take.
    pub(super) propagation: std::time::Duration,
}

impl Dns01 {
    /// What sets its records and takes them out of the world again.
    pub(super) fn hand(&self, supply: &Supply) -> Hand {
        Hand {
            provider: self.provider.clone(),
            store: supply.store.clone(),
            clock: supply.clock.clone(),
            cleanups: supply.cleanups.clone(),
        }
    }
}

impl Challenge {
    /// As the protocol names it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::Dns01(_) => "dns-01",
        }
    }
}

/// What a plan is made from besides the settings.
pub(super) struct Surroundings<'a> {
    /// Environment variables of this process.
    pub(super) variable: &'a Variable,
    pub(super) egress: Egress,
    pub(super) tasks: Tasks,
    pub(super) clock: Clock,
}

impl Plan {
    /// Reads the settings, and the files that they name. Blocks.
    ///
    /// # Errors
    /// `Incomplete` with what to type for what is missing or does not fit together.
    pub(super) fn read(settings: &Settings, around: &Surroundings<'_>) -> Result<Self, TlsError> {
        let aim = Aim::read(settings)?;
        let challenge = match settings.get(table::ACME_CHALLENGE) {
            "dns-01" => Challenge::Dns01(dns_01(settings, around)?),
            _ => Challenge::Http01,
        };
        if let (Challenge::Http01, Some(wildcard)) = (&challenge, aim.domains.iter().find(|one| one.starts_with("*.")))
        {
            return Err(unfit(
                format!("{wildcard} is a wildcard, which no directory checks by http-01 (RFC 8555 §7.1.3)"),
                "have it checked by DNS: --acme-challenge dns-01, and set acme.dns.provider",
            ));
        }
        Ok(Self {
            aim,
            trust: trust(&settings.get(table::ACME_CA_FILE))?,
            binding: binding(settings, around)?,
            challenge,
            allow_selfsigned: settings.get(table::ACME_ALLOW_SELFSIGNED),
        })
    }

    /// Key id of the external account; empty for none.
    pub(super) fn binding_id(&self) -> &str {
        self.binding.as_ref().map_or("", |binding| &binding.key_id)
    }
}

fn trust(path: &str) -> Result<Trust, TlsError> {
    if path.is_empty() {
        return Ok(Trust::System);
    }
    let pem = files::read_limited(Path::new(path), LARGEST_FILE)?;
    Trust::roots(&pem).map_err(|error| {
        unfit(
            format!("acme.ca_file names {}, which holds no root certificates: {error}", escape(path)),
            "give a file of PEM blocks BEGIN CERTIFICATE",
        )
    })
}

fn binding(settings: &Settings, around: &Surroundings<'_>) -> Result<Option<Binding>, TlsError> {
    let key_id = settings.get(table::ACME_EAB_KEY_ID);
    let secret = secret(settings, around, table::ACME_EAB_HMAC_ENV, table::ACME_EAB_HMAC_FILE)?;
    match (key_id.is_empty(), secret) {
        (true, None) => Ok(None),
        (false, Some(secret)) => {
            let text = secret.expose().trim_end_matches('=');
            let key = base64ct::Base64UrlUnpadded::decode_vec(text).map_err(|_| {
                unfit("the HMAC key of the external account is not in base64url", "give it as the directory shows it")
            })?;
            Ok(Some(Binding { key_id, key: zeroize::Zeroizing::new(key) }))
        }
        (_, _) => Err(incomplete(
            "an external account has a key id and an HMAC key, and one of them is missing",
            "set acme.eab.key_id, and acme.eab.hmac_file or acme.eab.hmac_env",
        )),
    }
}

fn dns_01(settings: &Settings, around: &Surroundings<'_>) -> Result<Dns01, TlsError> {
    let secret = secret(settings, around, table::ACME_DNS_SECRET_ENV, table::ACME_DNS_SECRET_FILE)?;
    let needs =
        |provider: &str, what: &str, hint: &str| incomplete(format!("the DNS provider {provider} needs {what}"), hint);
    let web = || Web::new(Trust::System, around.egress.clone(), around.tasks.clone());
    const SECRET: &str = "name where it is: flm config set acme.dns.secret_file /path/of/a/file/with/mode/0600";
    let user = settings.get(table::ACME_DNS_USER);
    let provider: Arc<dyn Provider> = match settings.get(table::ACME_DNS_PROVIDER) {
        "rfc2136" => {
            let server = NameServer::parse(&settings.get(table::ACME_DNS_RFC2136_SERVER)).ok_or_else(|| {
                needs("rfc2136", "a name server", "name it: flm config set acme.dns.rfc2136_server ns1.example.org:53")
            })?;
            let secret = secret.ok_or_else(|| needs("rfc2136", "the secret of a TSIG key", SECRET))?;
            if user.is_empty() {
                return Err(needs("rfc2136", "the name of a TSIG key", "name it: flm config set acme.dns.user NAME"));
            }
            let algorithm = match settings.get(table::ACME_DNS_TSIG_ALGORITHM) {
                "hmac-sha512" => Algorithm::HmacSha512,
                _ => Algorithm::HmacSha256,
            };
            let key = Key::new(&user, algorithm, &secret).map_err(|error| unfit(error.to_string(), SECRET))?;
            Arc::new(Rfc2136 { dns: DnsClient::new(around.egress.clone()), server, key, clock: around.clock.clone() })
        }
        "acme-dns" => {
            let url = settings.get(table::ACME_DNS_ACME_DNS_URL);
            let subdomain = settings.get(table::ACME_DNS_ACME_DNS_SUBDOMAIN);
            if url.is_empty() || subdomain.is_empty() || user.is_empty() {
                return Err(needs(
                    "acme-dns",
                    "the server's URL, a user and a subdomain",
                    "set acme.dns.acme_dns_url, acme.dns.user and acme.dns.acme_dns_subdomain as its registration told them",
                ));
            }
            let password = secret.ok_or_else(|| needs("acme-dns", "the user's password", SECRET))?;
            Arc::new(AcmeDns { web: web(), url, user, password, subdomain })
        }
        "cloudflare" => {
            let token =
                secret.ok_or_else(|| needs("cloudflare", "an API token that may edit the zone's DNS", SECRET))?;
            Arc::new(Cloudflare::new(web(), token))
        }
        _ => {
            let program = settings.get(table::ACME_DNS_COMMAND);
            if program.is_empty() {
                return Err(needs(
                    "exec",
                    "a program",
                    "name it: flm config set acme.dns.command /usr/local/bin/my-dns-hook, or choose another with acme.dns.provider",
                ));
            }
            Arc::new(Hook { program: program.into(), secret })
        }
    };
    Ok(Dns01 {
        provider,
        // The setting's rule has let servers through only.
        resolvers: settings.get(table::ACME_DNS_RESOLVERS).iter().filter_map(|text| NameServer::parse(text)).collect(),
        propagation: settings.get(table::ACME_DNS_PROPAGATION_TIMEOUT),
    })
}

/// A secret from the one variable or file that the settings name; `None` when they name none.
fn secret(
    settings: &Settings,
    around: &Surroundings<'_>,
    variable: Setting<String>,
    file: Setting<String>,
) -> Result<Option<Secret>, TlsError> {
    let (name, path) = (settings.get(variable), settings.get(file));
    let (variable, file) = (variable.definition.key, file.definition.key);
    match (name.as_str(), path.as_str()) {
        ("", "") => Ok(None),
        (name, "") => (around.variable)(name).map(Secret::new).map(Some).ok_or_else(|| {
            incomplete(
                format!("the variable {name}, which {variable} names, is not set"),
                format!("set it where FLM is started, or name a file with {file}"),
            )
        }),
        ("", path) => read_secret(Path::new(path)).map(Some),
        (_, _) => Err(unfit(
            format!("{variable} and {file} are both set"),
            format!("keep one of them: flm config unset {variable}"),
        )),
    }
}

fn read_secret(path: &Path) -> Result<Secret, TlsError> {
    let refused = |reason: String| TlsError::from(AcmeError::SecretFile { path: path.to_owned(), reason });
    match files::read_key_file(path, LARGEST_FILE)? {
        KeyFile::Private(content) => {
            let text = zeroize::Zeroizing::new(String::from_utf8_lossy(&content).into_owned());
            match text.lines().next().map(str::trim) {
                Some(line) if !line.is_empty() => Ok(Secret::new(line.to_owned())),
                _ => Err(refused("its first line is empty".to_owned())),
            }
        }
        KeyFile::TooOpen { mode } => Err(refused(format!("its mode is {mode:04o}, so that other users could read it"))),
        KeyFile::OfAnother { owner, me } => {
            Err(refused(format!("it belongs to user {owner}, and FLM runs as user {me}")))
        }
    }
}

fn incomplete(message: impl Into<String>, hint: impl Into<String>) -> TlsError {
    TlsError::Incomplete { message: message.into(), hint: hint.into() }
}

fn unfit(message: impl Into<String>, hint: impl Into<String>) -> TlsError {
    TlsError::Unfit { message: message.into(), hint: hint.into() }
}

/// The name of the record that proves a domain (RFC 8555 §8.4); a wildcard is proved by the name below it.
pub(super) fn record_name(domain: &str) -> Result<Name, AcmeError> {
    Name::parse(&format!("_acme-challenge.{}", domain.strip_prefix("*.").unwrap_or(domain)))
        .map_err(|error| AcmeError::Inside(error.to_string()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::files::Audience;
    use crate::config::settings::SettingLayers;
    use crate::types::failure::{ErrorCode, Failure};

    const WHOLE: [(&str, &str); 3] = [
        ("acme.domains", "LLM.example.org, llm.example.org"),
        ("acme.contact", "ops@example.org"),
        ("acme.agree_tos", "true"),
    ];

    pub(in crate::tls) fn settings(pairs: &[(&str, &str)]) -> Settings {
        let flags: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::build(&SettingLayers { flags, ..SettingLayers::default() }).expect("builds")
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Plan, Failure> {
        let variable = |name: &str| (name == "DNS_SECRET").then(|| "c2VjcmV0LW9mLWZsbQ==".to_owned());
        let around =
            Surroundings { variable: &variable, egress: Egress::direct(), tasks: Tasks::new(), clock: Clock::system() };
        Plan::read(&settings(&[&WHOLE[..], pairs].concat()), &around).map_err(Failure::from)
    }

    #[test]
    fn domain_contact_and_accepted_terms_are_required() {
        for (left_out, says) in [("acme.domains", "a domain"), ("acme.contact", "mail"), ("acme.agree_tos", "terms")] {
            let empty = if left_out == "acme.agree_tos" { "false" } else { "" };
            let failure = read(&[(left_out, empty)]).expect_err(left_out);
            assert_eq!(failure.code, ErrorCode::ConfigNotSet);
            assert!(failure.message.contains(says), "{}", failure.message);
            assert!(failure.hint.expect("a hint").contains("--acme-agree-tos"));
        }
        assert_eq!(read(&[]).expect("whole").aim.domains, ["llm.example.org"]);
    }

    #[test]
    fn staging_is_used_unless_another_directory_is_named_or_production_is_wanted() {
        let of = |pairs: &[(&str, &str)]| read(pairs).expect("a plan").aim.directory;
        assert_eq!(of(&[]), STAGING);
        assert_eq!(of(&[("acme.production", "true")]), PRODUCTION);
        let own = ("acme.directory", "https://ca.lan/directory");
        assert_eq!(of(&[own, ("acme.production", "true")]), own.1);
        assert_ne!(
            read(&[]).expect("staging").aim.stored_name(),
            read(&[("acme.production", "true")]).expect("production").aim.stored_name(),
            "what staging gave is never served as the real one"
        );
        let clear = read(&[("acme.directory", "http://ca.lan/directory")]).expect_err("in clear");
        assert!(clear.message.contains("https only"), "{}", clear.message);
    }

    #[test]
    fn a_wildcard_is_refused_before_anybody_is_asked_unless_it_is_proved_by_dns() {
        let wildcard = ("acme.domains", "*.example.org,example.org");
        let failure = read(&[wildcard]).expect_err("http-01");
        assert!(failure.message.contains("*.example.org") && failure.hint.expect("a hint").contains("dns-01"));
        let dns = [wildcard, ("acme.challenge", "dns-01"), ("acme.dns.command", "/bin/true")];
        let plan = read(&dns).expect("dns-01");
        assert_eq!((plan.challenge.name(), plan.aim.domains.len()), ("dns-01", 2));
        assert_eq!(record_name("*.example.org").expect("a name").to_string(), "_acme-challenge.example.org");
    }

    #[test]
    fn every_provider_says_what_it_lacks() {
        for (provider, given, says) in [
            ("exec", vec![], "a program"),
            ("rfc2136", vec![], "a name server"),
            ("rfc2136", vec![("acme.dns.rfc2136_server", "127.0.0.1:53")], "the secret"),
            (
                "rfc2136",
                vec![("acme.dns.rfc2136_server", "127.0.0.1:53"), ("acme.dns.secret_env", "DNS_SECRET")],
                "the name of a TSIG key",
            ),
            ("acme-dns", vec![], "URL"),
            (
                "acme-dns",
                vec![
                    ("acme.dns.acme_dns_url", "https://a.lan"),
                    ("acme.dns.user", "u"),
                    ("acme.dns.acme_dns_subdomain", "s"),
                ],
                "password",
            ),
            ("cloudflare", vec![], "token"),
            ("cloudflare", vec![("acme.dns.secret_env", "OTHER")], "OTHER"),
        ] {
            let base = [("acme.challenge", "dns-01"), ("acme.dns.provider", provider)];
            let failure = read(&[&base[..], &given].concat()).expect_err(says);
            assert!(failure.message.contains(says), "{provider}: {}", failure.message);
            assert!(failure.hint.is_some());
        }
    }

    #[test]
    fn secrets_come_from_a_private_file_or_a_variable_and_are_never_shown() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        files::replace(&path, b"c2VjcmV0LW9mLWZsbQ==\nmore\n", Audience::Owner).expect("writes");
        let text = path.to_str().expect("UTF-8");
        let rfc2136 = [
            ("acme.challenge", "dns-01"),
            ("acme.dns.provider", "rfc2136"),
            ("acme.dns.rfc2136_server", "127.0.0.1:53"),
            ("acme.dns.user", "flm-key"),
        ];
        for given in [("acme.dns.secret_env", "DNS_SECRET"), ("acme.dns.secret_file", text)] {
            let plan = read(&[&rfc2136[..], &[given]].concat()).expect("a plan");
            let shown = format!("{plan:?}");
            assert!(shown.contains("flm-key") && !shown.contains("c2Vjcm") && !shown.contains("secret-of"), "{shown}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("opens");
        let failure = read(&[&rfc2136[..], &[("acme.dns.secret_file", text)]].concat()).expect_err("too open");
        assert!(failure.message.contains("0644") && failure.hint.expect("a hint").contains("chmod 600"));
        for (pairs, says) in [
            (vec![("acme.eab.key_id", "kid")], "one of them is missing"),
            (
                vec![("acme.eab.key_id", "kid"), ("acme.eab.hmac_env", "DNS_SECRET"), ("acme.eab.hmac_file", "/x")],
                "both set",
            ),
        ] {
            assert!(read(&pairs).expect_err(says).message.contains(says));
        }
        let bound = read(&[("acme.eab.key_id", "kid"), ("acme.eab.hmac_env", "DNS_SECRET")]).expect("bound");
        assert_eq!(bound.binding_id(), "kid");
    }
}
