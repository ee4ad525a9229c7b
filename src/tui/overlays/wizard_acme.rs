//! The page of the setup wizard that asks what a certificate from an ACME directory is for and how its domains are proved
//! (SPEC §6): the settings `acme.…`, each beside the rule that it keeps.
//!
//! A secret is never typed here: its field takes the name of the environment variable that holds it.

use crate::config::settings::Settings;
use crate::tui::overlays::form::{Choice, Field, Value};
use crate::tui::overlays::forms::Faults;
use crate::tui::state::State;
use crate::tui::text::Words;

/// Fields of the page.
const DOMAINS: usize = 0;
const CONTACT: usize = 1;
const DIRECTORY: usize = 2;
const URL: usize = 3;
const CHALLENGE: usize = 4;
const PROVIDER: usize = 5;
const COMMAND: usize = 6;
const SERVER: usize = 7;
const ACME_DNS_URL: usize = 8;
const SUBDOMAIN: usize = 9;
const USER: usize = 10;
const SECRET: usize = 11;
const TERMS: usize = 12;

/// Values of [`DIRECTORY`].
const STAGING: &str = "staging";
const PRODUCTION: &str = "production";
const OTHER: &str = "other";

/// The setting of each field that is one, and the key of its rule.
const SETTINGS: [(usize, &str, &str); 10] = [
    (DOMAINS, "acme.domains", "obtain.domains_rule"),
    (CONTACT, "acme.contact", "obtain.contact_rule"),
    (CHALLENGE, "acme.challenge", "obtain.choice_rule"),
    (PROVIDER, "acme.dns.provider", "obtain.choice_rule"),
    (COMMAND, "acme.dns.command", "wizard.file_rule"),
    (SERVER, "acme.dns.rfc2136_server", "obtain.server_rule"),
    (ACME_DNS_URL, "acme.dns.acme_dns_url", "obtain.url_rule"),
    (SUBDOMAIN, "acme.dns.acme_dns_subdomain", "obtain.name_rule"),
    (USER, "acme.dns.user", "obtain.name_rule"),
    (SECRET, "acme.dns.secret_env", "obtain.secret_rule"),
];

/// The fields with the values in force.
pub(super) fn fields(state: &State) -> Vec<Field> {
    let value = |key: &str| {
        let settings = state.world.settings.value.iter().flatten();
        settings.filter(|setting| setting.key == key).map(|setting| setting.value.clone()).next().unwrap_or_default()
    };
    let text = |label, hint, key: &str| Field::text(label, hint, &value(key));
    let words = &state.words;
    let said = |value: &str, label: &'static str| choice(value, words.say(label).into_owned());
    let plain = |value: &str| choice(value, value.to_owned());
    let directory = match (value("acme.directory").is_empty(), value("acme.production") == "true") {
        (true, false) => STAGING,
        (true, true) => PRODUCTION,
        (false, _) => OTHER,
    };
    let agreed = if value("acme.agree_tos") == "true" { "true" } else { "false" };
    let directories =
        vec![said(STAGING, "obtain.staging"), said(PRODUCTION, "obtain.production"), said(OTHER, "obtain.other")];
    let providers = ["exec", "rfc2136", "acme-dns", "cloudflare"].map(plain).to_vec();
    vec![
        text("obtain.domains", "obtain.domains_hint", "acme.domains"),
        text("obtain.contact", "obtain.contact_hint", "acme.contact"),
        chosen(Field::choice("obtain.directory", "obtain.directory_hint", directories), directory),
        text("obtain.url", "obtain.url_hint", "acme.directory"),
        chosen(
            Field::choice("obtain.challenge", "obtain.challenge_hint", ["http-01", "dns-01"].map(plain).to_vec()),
            &value("acme.challenge"),
        ),
        chosen(Field::choice("obtain.provider", "obtain.provider_hint", providers), &value("acme.dns.provider")),
        text("obtain.command", "obtain.command_hint", "acme.dns.command"),
        text("obtain.server", "obtain.server_hint", "acme.dns.rfc2136_server"),
        text("obtain.acme_dns_url", "obtain.acme_dns_url_hint", "acme.dns.acme_dns_url"),
        text("obtain.subdomain", "obtain.subdomain_hint", "acme.dns.acme_dns_subdomain"),
        text("obtain.user", "obtain.user_hint", "acme.dns.user"),
        text("obtain.secret", "obtain.secret_hint", "acme.dns.secret_env"),
        chosen(
            Field::choice(
                "obtain.terms",
                "obtain.terms_hint",
                vec![said("false", "obtain.not_agreed"), said("true", "obtain.agreed")],
            ),
            agreed,
        ),
    ]
}

fn choice(value: &str, label: String) -> Choice {
    Choice { value: value.to_owned(), label }
}

fn chosen(mut field: Field, value: &str) -> Field {
    if let Value::Choice { options, at } = &mut field.value {
        *at = options.iter().position(|choice| choice.value == value).unwrap_or(0);
    }
    field
}

/// Numbers of the fields that are of use with what is chosen.
pub(super) fn shown(fields: &[Field]) -> Vec<usize> {
    let get = |number: usize| fields.get(number).map_or("", Field::get);
    let mut shown = vec![DOMAINS, CONTACT, DIRECTORY];
    if get(DIRECTORY) == OTHER {
        shown.push(URL);
    }
    shown.push(CHALLENGE);
    if get(CHALLENGE) == "dns-01" {
        shown.push(PROVIDER);
        shown.extend_from_slice(match get(PROVIDER) {
            "rfc2136" => &[SERVER, USER, SECRET],
            "acme-dns" => &[ACME_DNS_URL, SUBDOMAIN, USER, SECRET],
            "cloudflare" => &[SECRET],
            _ => &[COMMAND],
        });
    }
    shown.push(TERMS);
    shown
}

/// What is wrong with which field.
pub(super) fn faults(words: &Words, fields: &[Field]) -> Faults {
    let mut faults = Faults::new();
    for number in shown(fields) {
        let value = fields[number].get();
        let rule = match number {
            DIRECTORY => None,
            URL => is_wrong("acme.directory", value, Need::Given).then_some("obtain.url_rule"),
            TERMS => (value != "true").then_some("obtain.terms_rule"),
            _ => SETTINGS.iter().find(|(field, ..)| *field == number).and_then(|(_, key, rule)| {
                // A file may hold the secret.
                let need = if number == SECRET { Need::Optional } else { Need::Given };
                is_wrong(key, value, need).then_some(*rule)
            }),
        };
        if let Some(rule) = rule {
            faults.push((number, words.say(rule).into_owned()));
        }
    }
    // Only by DNS can a directory be shown that a whole zone is one's own (RFC 8555 §7.1.3).
    if fields[DOMAINS].get().contains('*') && fields[CHALLENGE].get() != "dns-01" {
        faults.push((CHALLENGE, words.say("obtain.wildcard_rule").into_owned()));
    }
    faults
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Given,
    Optional,
}

fn is_wrong(key: &str, value: &str, need: Need) -> bool {
    (value.is_empty() && need == Need::Given) || Settings::check(key, value).is_err()
}

/// The settings that differ from those in force, as key and value.
pub(super) fn changes(state: &State, fields: &[Field]) -> Vec<(&'static str, String)> {
    let get = |number: usize| fields[number].get().to_owned();
    let directory = get(DIRECTORY);
    let mut wanted: Vec<(&'static str, String)> = shown(fields)
        .into_iter()
        .filter_map(|number| SETTINGS.iter().find(|(field, ..)| *field == number))
        .map(|(number, key, _)| (*key, get(*number)))
        .collect();
    wanted.push(("acme.directory", if directory == OTHER { get(URL) } else { String::new() }));
    wanted.push(("acme.production", (directory == PRODUCTION).to_string()));
    wanted.push(("acme.agree_tos", get(TERMS)));
    let in_force = |key: &str| {
        let mut settings = state.world.settings.value.iter().flatten();
        settings.find(|setting| setting.key == key).map(|setting| setting.value.clone())
    };
    wanted.retain(|(key, value)| in_force(key).as_ref() != Some(value));
    wanted
}

/// What a router in front of this machine has to let through to the ports of the listener.
pub(super) fn way_in(words: &Words, fields: &[Field], port: u16, https_port: u16) -> String {
    let key = if fields[CHALLENGE].get() == "dns-01" { "obtain.router_dns" } else { "obtain.router" };
    words.fill(key, &[("port", &port.to_string()), ("https_port", &https_port.to_string())])
}

/// What the certificate will be for and from where, for the summary.
pub(super) fn told(words: &Words, fields: &[Field]) -> String {
    let get = |number: usize| fields[number].get();
    let directory = match get(DIRECTORY) {
        PRODUCTION => words.say("obtain.production").into_owned(),
        OTHER => get(URL).to_owned(),
        _ => words.say("obtain.staging").into_owned(),
    };
    let domains = crate::types::text::escape(get(DOMAINS)).into_owned();
    let directory = crate::types::text::escape(&directory).into_owned();
    words.fill("obtain.will_obtain", &[("domains", &domains), ("directory", &directory), ("challenge", get(CHALLENGE))])
}
