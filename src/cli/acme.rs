//! Options of `flm proxy start` for certificates from an ACME directory.

use std::path::PathBuf;

use clap::Args;

use crate::control::Operator;
use crate::types::calls::settings::{SetSetting, SettingSource};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// What to obtain and from whom; kept as settings `acme.…`, where everything else about it is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of the mode https-acme, kept as settings")]
pub(super) struct AcmeArguments {
    /// Domain that the certificate is for; may be repeated, *.example.org needs --acme-challenge dns-01
    #[arg(long = "acme-domain", value_name = "NAME")]
    domains: Vec<String>,
    /// Mail address that the directory may write to about the certificate; may be repeated
    #[arg(long = "acme-email", value_name = "MAIL")]
    emails: Vec<String>,
    /// Accept the terms of the directory (Let's Encrypt: letsencrypt.org/repository)
    #[arg(long)]
    acme_agree_tos: bool,
    /// Ask for a certificate that everybody trusts; without it the staging directory is used, for trying
    #[arg(long)]
    acme_production: bool,
    /// URL of another directory than Let's Encrypt
    #[arg(long, value_name = "URL")]
    acme_directory: Option<String>,
    /// Root certificates (PEM) that this directory is trusted by [default: the system's]
    #[arg(long, value_name = "FILE")]
    acme_ca_file: Option<PathBuf>,
    /// How the domains are checked: by a request to port 80, or by a TXT record
    #[arg(long, value_name = "KIND", value_parser = ["http-01", "dns-01"])]
    acme_challenge: Option<String>,
    /// Serve a self-signed certificate, with a loud warning, while the directory has never given one
    #[arg(long)]
    acme_allow_selfsigned: bool,
}

impl AcmeArguments {
    /// As settings.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let list = |items: &[String]| (!items.is_empty()).then(|| items.join(","));
        let on = |given: bool| given.then(|| "true".to_owned());
        // The daemon lives in another folder.
        let file = self.acme_ca_file.as_ref().map(|path| std::path::absolute(path).unwrap_or(path.clone()));
        [
            ("acme.domains", list(&self.domains)),
            ("acme.contact", list(&self.emails)),
            ("acme.agree_tos", on(self.acme_agree_tos)),
            ("acme.production", on(self.acme_production)),
            ("acme.directory", self.acme_directory.clone()),
            ("acme.ca_file", file.map(|path| path.to_string_lossy().into_owned())),
            ("acme.challenge", self.acme_challenge.clone()),
            ("acme.allow_selfsigned", on(self.acme_allow_selfsigned)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }

    /// Whether any of them was given.
    pub(super) fn given(&self) -> bool {
        !self.settings().is_empty()
    }
}

/// Keeps settings, so that renewals and the next plain start know them.
///
/// # Errors
/// When a value breaks its rule, or a stronger layer says something else than what is stored.
pub(super) async fn keep(operator: &Operator, settings: &[(String, String)]) -> Outcome<()> {
    for (key, value) in settings {
        let view = operator.call(SetSetting { key: key.clone(), value: value.clone() }).await?;
        let layer = match view.source {
            SettingSource::Flag => "the options that the daemon was started with",
            SettingSource::Environment => "the daemon's environment",
            SettingSource::File => "flm.toml",
            SettingSource::Database | SettingSource::Default => continue,
        };
        if view.value != *value {
            return Err(Failure::new(
                ErrorCode::ProxyInvalidConfig,
                format!("{key} is {} by {layer}, which is stronger than an option given now", view.value),
            )
            .hint("change it there, then start again"));
        }
    }
    Ok(())
}
