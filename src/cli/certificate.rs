//! `flm security certificate`: the listeners' certificates.

use clap::Subcommand;

use super::output::{Output, ProgressLine};
use super::proxy::certificate_lines;
use super::session::Session;
use crate::types::calls::certificates::RenewCertificate;
use crate::types::calls::proxy::Status;
use crate::types::failure::Outcome;
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum CertificateCommand {
    /// Show the certificate of each listener: names, end, next renewal, what went wrong last
    #[command(after_help = "Example:\n  flm security certificate status")]
    Status,
    /// Give a listener another certificate now, without waiting for the next renewal
    #[command(after_help = "Example:\n  flm security certificate renew")]
    Renew {
        /// Port for plain HTTP of the listener [default: the only one with TLS]
        #[arg(long, value_name = "N")]
        port: Option<u16>,
    },
}

impl CertificateCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Status => {
                let listeners = session.running().await?.call(Status {}).await?.listeners;
                let lines: Vec<String> = listeners.iter().flat_map(certificate_lines).collect();
                let told: Vec<_> = listeners
                    .iter()
                    .filter_map(|listener| Some((listener, listener.tls.as_ref()?)))
                    .map(|(listener, tls)| {
                        serde_json::json!({ "port": listener.config.port, "mode": listener.config.mode, "tls": tls })
                    })
                    .collect();
                let text = if lines.is_empty() {
                    "no listener with TLS runs: start one, such as 'flm proxy start --mode packaged-ca'".to_owned()
                } else {
                    lines.join("\n")
                };
                Ok(Output::new(&told, text))
            }
            Self::Renew { port } => {
                session.running().await?;
                let mut line = ProgressLine::new(session.format);
                let told = |progress: crate::types::certificate::CertificateProgress| {
                    line.show(&progress, &progress.message, &escape(&progress.message));
                };
                let outcome = session.follow(RenewCertificate { port }, told).await;
                line.end();
                let listener = outcome?;
                Ok(Output::new(&listener, certificate_lines(&listener).join("\n")))
            }
        }
    }
}
