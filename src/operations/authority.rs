//! The home's own certificate authority (SPEC §6): made, shown, asked for certificates, trusted by the system.

use super::context::{Context, blocking_panicked};
use crate::config::files::{self, Audience};
use crate::config::table;
use crate::tls::authority::Authority;
use crate::tls::certificate::describe_pem;
use crate::tls::error::TlsError;
use crate::tls::machine::Machine;
use crate::tls::trust_store;
use crate::types::address::parse_network;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::authority::{
    AuthorityView, InitAuthority, InstallAuthority, IssueCertificate, IssuedCertificate, ShowAuthority, TrustAction,
    TrustReport,
};
use crate::types::certificate::CertificateView;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

/// Makes the authority.
///
/// # Errors
/// `INVALID_ARGUMENT` when there is one and it is not to be replaced, or while the system still trusts it.
pub async fn init(context: &Context, call: InitAuthority) -> Outcome<AuthorityView> {
    let _changing = context.begin_change().await?;
    let now = context.clock.wall();
    // One that cannot be used any more is no reason not to replace it.
    let before = match Authority::load(&context.stores.security, now).await {
        Err(error) if !call.replace => return Err(error.into()),
        before => before.ok().flatten(),
    };
    if let Some(before) = &before {
        if !call.replace {
            return Err(Failure::new(ErrorCode::InvalidArgument, "this home has a certificate authority already")
                .hint("see it with 'flm security ca show'; --replace makes another, which clients must trust anew"));
        }
        if installed(&before.view).await? == Some(true) {
            return Err(Failure::new(
                ErrorCode::InvalidArgument,
                "the system still trusts the root that is to be replaced",
            )
            .hint("take it out first: flm security ca uninstall"));
        }
    }
    let networks = match call.networks {
        networks if networks.is_empty() => {
            let setting = context.settings.load().get(table::TLS_CA_NETWORKS);
            // The setting's rule has let networks through only.
            setting.iter().filter_map(|text| parse_network(text).ok()).collect()
        }
        networks => networks,
    };
    let further = context.settings.load().get(table::PROXY_ALLOWED_HOSTS);
    let looked = tokio::task::spawn_blocking(move || Machine::now().with_names(further).with_names(call.names)).await;
    let machine = looked.map_err(|_| blocking_panicked("looking at the machine's addresses"))?;
    let authority = Authority::make(&context.stores.security, &machine, &networks, now).await?;
    let what = if before.is_some() { "replaced" } else { "made" };
    let details = format!("the certificate authority was {what}: {}", authority.view.fingerprint);
    context.record(AuditKind::CertificateChanged, Severity::Medium, details).await;
    if let Some(live) = &context.live {
        // Listeners take a certificate of the new root at once.
        live.host.renew_certificates().await?;
    }
    view(authority).await
}

/// Shows the authority.
///
/// # Errors
/// `NOT_FOUND` when there is none.
pub async fn show(context: &Context, _call: ShowAuthority) -> Outcome<AuthorityView> {
    view(load(context).await?).await
}

/// Makes a server's certificate. Its key is answered and not kept.
///
/// # Errors
/// `NOT_FOUND` without an authority, `INVALID_ARGUMENT` for names that it may not vouch for.
pub async fn issue(context: &Context, call: IssueCertificate) -> Outcome<IssuedCertificate> {
    let _changing = context.begin_change().await?;
    let authority = load(context).await?;
    let (_, refused) = authority.allowed(call.names.clone());
    if !refused.is_empty() {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the certificate authority may not vouch for {}", escape(&refused.join(", "))),
        )
        .hint(format!("it may for what is below: {}", authority.permitted().join(", "))));
    }
    let made = authority.issue(call.names, context.clock.wall())?;
    let fault = |fault| TlsError::Unusable { what: "the certificate that was just issued".into(), fault };
    let certificate = describe_pem(&made.issued.chain).map_err(fault)?;
    let details = format!("a certificate was issued for {}", certificate.names.join(", "));
    context.record(AuditKind::CertificateChanged, Severity::Medium, details).await;
    Ok(IssuedCertificate { certificate, chain: made.issued.chain, key: made.issued.key, refused: made.refused })
}

/// Puts the root into the system's trust store, takes it out, or says how.
///
/// # Errors
/// See [`trust_store::act`].
pub async fn install(context: &Context, call: InstallAuthority) -> Outcome<TrustReport> {
    let _changing = context.begin_change().await?;
    let authority = load(context).await?;
    let root = authority.view.clone();
    if let Some(expected) = &call.fingerprint
        && !same_digits(expected, &root.fingerprint)
    {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the root's fingerprint is {}, not the expected one", root.fingerprint),
        )
        .hint("nothing was changed: find out which of the two is right before anybody trusts it"));
    }
    let pem = authority.root_pem().to_owned();
    let exported = context.paths.config_file().with_file_name("flm-root.pem");
    files::replace(&exported, pem.as_bytes(), Audience::Owner)?;
    let report = trust_store::act(&root, &pem, &exported, call.action, call.system, call.dry_run).await?;
    if report.executed {
        let done = match call.action {
            TrustAction::Install => "trusts",
            TrustAction::Uninstall => "no longer trusts",
        };
        let details = format!("this system {done} the certificate authority {}", root.fingerprint);
        context.record(AuditKind::CertificateChanged, Severity::High, details).await;
    }
    Ok(report)
}

async fn load(context: &Context) -> Outcome<Authority> {
    let found = Authority::load(&context.stores.security, context.clock.wall()).await?;
    Ok(found.ok_or(TlsError::NoAuthority)?)
}

async fn view(authority: Authority) -> Outcome<AuthorityView> {
    let installed = installed(&authority.view).await?;
    let (permitted, pem) = (authority.permitted(), authority.root_pem().to_owned());
    Ok(AuthorityView { root: authority.view, permitted, pem, installed })
}

async fn installed(root: &CertificateView) -> Outcome<Option<bool>> {
    let root = root.clone();
    let looked = tokio::task::spawn_blocking(move || trust_store::is_installed(&root)).await;
    looked.map_err(|_| blocking_panicked("looking at the trust store"))
}

/// Whether two fingerprints are the same, however they are spaced.
fn same_digits(one: &str, other: &str) -> bool {
    let digits = |text: &str| -> String {
        text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase()
    };
    digits(one) == digits(other)
}
