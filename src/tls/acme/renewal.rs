//! When a certificate is asked for, how long a failure keeps from asking again, and what is served meanwhile (SPEC §6).

use std::sync::Arc;
use std::time::Duration;

use super::ari;
use super::client::Client;
use super::dns_01;
use super::error::AcmeError;
use super::order;
use super::plan::{Aim, Challenge, Plan, Surroundings};
use crate::net::web::Web;
use crate::storage::SecurityStore;
use crate::tls::certificate::Certificate;
use crate::tls::error::TlsError;
use crate::tls::issuing;
use crate::tls::supply::{Supplied, Supply, Wanted};
use crate::types::acme::{AcmeAttempts, RenewalAdvice};
use crate::types::calendar::moment;
use crate::types::certificate::{Occasion, StoredCertificate};
use crate::types::clock::UnixMillis;
use crate::types::failure::Failure;

/// Name of the stand-in in the store.
const SELF_SIGNED: &str = "https-acme self-signed";
/// Pause after the first failure; doubled after each. With it an hour sees five attempts: what Let's Encrypt allows to fail for
/// a name (letsencrypt.org/docs/rate-limits, "Authorization Failures per Identifier per Account").
const FIRST_PAUSE: Duration = Duration::from_mins(3);
/// Longest pause (SECURITY.md §A).
const LONGEST_PAUSE: Duration = Duration::from_hours(6);
/// Failures after which also a start has to wait: a service that is started again and again is nobody at a keyboard.
const PATIENT_AFTER: u32 = 5;
/// How much of a pause is added at random, so that not everybody comes back at once.
const JITTER: f64 = 0.25;

/// Gives a listener its certificate: the one that is kept while it is good, else a new one; while there is none, what the
/// ladder of SPEC §6 leaves.
///
/// # Errors
/// When the settings are incomplete, or there is nothing that may be served.
pub(in crate::tls) async fn certify(supply: Arc<Supply>, wanted: Wanted) -> Result<Supplied, TlsError> {
    let plan = match read_plan(&supply).await {
        Ok(plan) => plan,
        Err(fault) if wanted.occasion == Occasion::Start => return kept_despite(&supply, fault).await,
        Err(fault) => return Err(fault),
    };
    let name = plan.aim.stored_name();
    let client = {
        let web = Web::new(plan.trust.clone(), supply.egress.clone(), supply.cleanups.clone());
        Client::new(web, supply.clock.clone(), &plan.aim.directory)
    };
    let mut turn = None;
    loop {
        let now = supply.clock.wall();
        let stored = supply.store.certificate(&name).await?;
        let kept = stored.as_ref().and_then(|stored| good(stored, &plan.aim, now));
        let advice = match (&kept, &stored) {
            (Some(kept), Some(stored)) => advice(&supply, &plan, &client, &wanted, kept, &stored.chain, now).await?,
            _ => None,
        };
        let attempts = supply.store.acme_attempts(&name).await?;
        let ladder = Ladder { supply: &supply, plan: &plan, kept: kept.as_ref(), advice: advice.as_ref() };
        let decision = decide(wanted.occasion, kept.as_ref(), advice.as_ref(), attempts.as_ref(), now);
        // A start that obtains nothing still tidies up, and does not wait for it.
        if wanted.occasion == Occasion::Start
            && !matches!(decision, Decision::Obtain)
            && let Ok(_alone) = supply.ordering.try_lock()
        {
            left_behind(&supply, &plan).await?;
        }
        match decision {
            Decision::Keep => return ladder.serve(None, now).await,
            Decision::Wait(attempts) => return ladder.serve(Some(waiting(attempts, wanted.occasion)), now).await,
            // One at a time: a second listener of the same domains finds the certificate that the first one obtained.
            Decision::Obtain if turn.is_none() => turn = Some(supply.ordering.lock().await),
            Decision::Obtain => {
                // Before new records come: some programs remove all records of a name.
                for removal in left_behind(&supply, &plan).await? {
                    wanted.progress.tell("removing TXT records that an earlier attempt left behind");
                    if removal.await.is_err() {
                        tracing::error!("removing a TXT record failed inside FLM");
                    }
                }
                // What is replaced is named on the first try only: a directory that dislikes it must not keep us from
                // another.
                let replaces = match (&stored, &attempts) {
                    (Some(stored), None) if kept.is_some() => ari::identifier(&stored.chain),
                    _ => None,
                };
                return match order::obtain(&supply, &plan, &client, replaces, &wanted.progress).await {
                    Ok(issued) => {
                        let certificate = supply.keep(&name, issued, supply.clock.wall()).await?;
                        supply.store.put_acme_attempts(&name, None).await?;
                        let renewal = renewal(&certificate, None);
                        Ok(Supplied::good(certificate, Some(renewal)))
                    }
                    Err(error) => {
                        let now = supply.clock.wall();
                        note(&supply.store, &name, attempts, &error, now).await?;
                        ladder.serve(Some(error), now).await
                    }
                };
            }
        }
    }
}

/// What is kept, if it is valid and for these domains.
fn good(stored: &StoredCertificate, aim: &Aim, now: UnixMillis) -> Option<Certificate> {
    let kept = Certificate::from_stored(stored, now).ok()?;
    aim.domains.iter().all(|domain| kept.view.names.contains(domain)).then_some(kept)
}

/// A start that cannot read how to obtain a certificate, say because a file is gone, serves the one that it has (SPEC §6: on failure
/// a valid old one), and tells what is wrong: clients do not wait for whoever mends it.
async fn kept_despite(supply: &Supply, fault: TlsError) -> Result<Supplied, TlsError> {
    let Ok(aim) = Aim::read(&(supply.settings)()) else { return Err(fault) };
    let now = supply.clock.wall();
    let stored = supply.store.certificate(&aim.stored_name()).await?;
    let Some(kept) = stored.as_ref().and_then(|stored| good(stored, &aim, now)) else { return Err(fault) };
    let renewal = renewal(&kept, None);
    Ok(Supplied { trouble: Some(fault.into()), ..Supplied::good(kept, Some(renewal)) })
}

/// Begins to take out of the world what an attempt left there that a crash ended. Only while no other attempt runs.
async fn left_behind(supply: &Supply, plan: &Plan) -> Result<Vec<tokio::task::JoinHandle<()>>, TlsError> {
    match &plan.challenge {
        Challenge::Http01 => Ok(Vec::new()),
        Challenge::Dns01(dns) => Ok(dns_01::remove_left_behind(&dns.hand(supply)).await?),
    }
}

async fn read_plan(supply: &Arc<Supply>) -> Result<Plan, TlsError> {
    let supply = supply.clone();
    let read = tokio::task::spawn_blocking(move || {
        let around = Surroundings {
            variable: supply.variable.as_ref(),
            egress: supply.egress.clone(),
            tasks: supply.cleanups.clone(),
            clock: supply.clock.clone(),
        };
        Plan::read(&(supply.settings)(), &around)
    });
    read.await.map_err(|error| TlsError::Setup(format!("reading the settings of ACME failed: {error}")))?
}

/// What the directory advises; asked only in passing, when nobody waits.
async fn advice(
    supply: &Supply,
    plan: &Plan,
    client: &Client,
    wanted: &Wanted,
    kept: &Certificate,
    chain: &str,
    now: UnixMillis,
) -> Result<Option<RenewalAdvice>, TlsError> {
    let name = plan.aim.stored_name();
    let known = supply.store.renewal_advice(&name).await?;
    if wanted.occasion != Occasion::Look || !ari::is_due(known.as_ref(), &kept.view, now) {
        return Ok(known.filter(|advice| advice.fingerprint == kept.view.fingerprint));
    }
    match ari::ask(&supply.store, plan, client, &name, chain, &kept.view, now).await {
        Ok(advice) => Ok(Some(advice)),
        Err(error) => {
            tracing::warn!(%error, "the ACME directory gives no advice on renewal");
            Ok(known.filter(|advice| advice.fingerprint == kept.view.fingerprint))
        }
    }
}

/// When a certificate is renewed: when the directory advises to, else with a third of its life left (SPEC §6); never later than
/// with a tenth left, whatever is advised.
fn renewal(certificate: &Certificate, advice: Option<&RenewalAdvice>) -> UnixMillis {
    let view = &certificate.view;
    let life = view.not_after.since(view.not_before);
    let latest = view.not_after.minus(life / 10);
    advice.and_then(|advice| advice.renew).unwrap_or_else(|| view.not_after.minus(life / 3)).min(latest)
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// What is kept is good.
    Keep,
    /// Another one is due.
    Obtain,
    /// Another one is due, but it is too early for another attempt.
    Wait(AcmeAttempts),
}

fn decide(
    occasion: Occasion,
    kept: Option<&Certificate>,
    advice: Option<&RenewalAdvice>,
    attempts: Option<&AcmeAttempts>,
    now: UnixMillis,
) -> Decision {
    let due = kept.is_none_or(|kept| renewal(kept, advice) <= now);
    let waits = |attempts: &&AcmeAttempts| {
        let binding = match occasion {
            Occasion::Look | Occasion::Reload => true,
            // Somebody mended something and wants to know: only what the directory itself said holds.
            Occasion::Asked => attempts.named_by_directory,
            Occasion::Start => attempts.named_by_directory || attempts.failures >= PATIENT_AFTER,
        };
        binding && now < attempts.next
    };
    match (occasion, attempts.filter(waits)) {
        // Nobody waits 90 s for a reload, and a start is served by what is there: it is renewed in passing.
        (Occasion::Reload | Occasion::Start, _) if kept.is_some() => Decision::Keep,
        (Occasion::Asked, Some(attempts)) => Decision::Wait(attempts.clone()),
        (Occasion::Asked, None) => Decision::Obtain,
        (_, _) if !due => Decision::Keep,
        (_, Some(attempts)) => Decision::Wait(attempts.clone()),
        (_, None) => Decision::Obtain,
    }
}

/// Why there is no attempt now: told in full to whoever asked for one, else as what the last one failed with.
fn waiting(attempts: AcmeAttempts, occasion: Occasion) -> AcmeError {
    let AcmeAttempts { failures, last, why, next, named_by_directory } = attempts;
    match occasion {
        Occasion::Start | Occasion::Asked => AcmeError::TooEarly { failures, last, why, next, named_by_directory },
        Occasion::Look | Occasion::Reload => AcmeError::Earlier { why, next },
    }
}

async fn note(
    store: &SecurityStore,
    name: &str,
    before: Option<AcmeAttempts>,
    error: &AcmeError,
    now: UnixMillis,
) -> Result<(), TlsError> {
    let failures = before.map_or(0, |before| before.failures).saturating_add(1);
    let own = now.plus(pause(failures, fastrand::f64()));
    let named = error.retry();
    let attempts = AcmeAttempts {
        failures,
        last: now,
        why: error.to_string(),
        next: named.map_or(own, |named| named.max(own)),
        named_by_directory: named.is_some(),
    };
    Ok(store.put_acme_attempts(name, Some(attempts)).await?)
}

/// How long after that many failures in a row nobody asks.
fn pause(failures: u32, random: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE).mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0))
}

/// SPEC §6: a valid old certificate, else a self-signed one where that is allowed, else an error.
struct Ladder<'a> {
    supply: &'a Arc<Supply>,
    plan: &'a Plan,
    kept: Option<&'a Certificate>,
    advice: Option<&'a RenewalAdvice>,
}

impl Ladder<'_> {
    async fn serve(&self, error: Option<AcmeError>, now: UnixMillis) -> Result<Supplied, TlsError> {
        let attempts = self.supply.store.acme_attempts(&self.plan.aim.stored_name()).await?;
        let next = attempts.as_ref().map(|attempts| attempts.next);
        match (self.kept, error) {
            (Some(kept), error) => {
                let renewal = renewal(kept, self.advice);
                // A start or a reload that keeps it does not forget that the last renewal failed.
                let trouble = error
                    .or_else(|| attempts.filter(|_| renewal <= now).map(|attempts| waiting(attempts, Occasion::Look)));
                let trouble = trouble.map(Failure::from);
                let next_renewal = next.filter(|_| trouble.is_some()).map_or(renewal, |next| next.max(renewal));
                Ok(Supplied { trouble, ..Supplied::good(kept.clone(), Some(next_renewal)) })
            }
            (None, Some(error)) if self.plan.allow_selfsigned => {
                let wanted = &self.plan.aim.domains;
                let certificate = match self.supply.kept(SELF_SIGNED, wanted, now).await? {
                    Some(kept) => kept,
                    None => self.supply.keep(SELF_SIGNED, issuing::self_signed(wanted.clone(), now)?, now).await?,
                };
                let again = next.map_or_else(|| "soon".to_owned(), |next| format!("after {}", moment(next)));
                let warning = format!(
                    "SELF-SIGNED: nobody can tell this server from an impostor. The ACME directory gave no certificate and \
                     acme.allow_selfsigned is on; it is asked again {again}"
                );
                let supplied = Supplied::good(certificate, next);
                Ok(Supplied { warning: Some(warning), trouble: Some(error.into()), ..supplied })
            }
            (None, Some(error)) => Err(error.into()),
            (None, None) => Err(TlsError::Setup("there is neither a certificate nor a reason why not".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const BEGIN: UnixMillis = UnixMillis(1_790_000_000_000);

    /// Valid for 90 days from [`BEGIN`].
    fn certificate() -> Certificate {
        let issued = issuing::self_signed(vec!["a.example".into()], BEGIN).expect("issues");
        let mut made =
            Certificate::from_pem(issued.chain.as_bytes(), issued.key.expose().as_bytes(), BEGIN).expect("fits");
        (made.view.not_before, made.view.not_after) = (BEGIN, BEGIN.plus(DAY * 90));
        made
    }

    fn advised(after: Duration) -> RenewalAdvice {
        RenewalAdvice {
            fingerprint: String::new(),
            renew: Some(BEGIN.plus(after)),
            window: None,
            ask_again: UnixMillis(0),
        }
    }

    fn attempts(failures: u32, next: UnixMillis, named_by_directory: bool) -> AcmeAttempts {
        AcmeAttempts { failures, last: BEGIN, why: "no".into(), next, named_by_directory }
    }

    #[test]
    fn a_third_of_the_life_left_renews_and_so_does_an_earlier_advice() {
        let kept = certificate();
        assert_eq!(renewal(&kept, None), BEGIN.plus(DAY * 60));
        assert_eq!(renewal(&kept, Some(&advised(DAY * 10))), BEGIN.plus(DAY * 10));
        assert_eq!(renewal(&kept, Some(&advised(DAY * 70))), BEGIN.plus(DAY * 70), "a later advice is followed");
        assert_eq!(renewal(&kept, Some(&advised(DAY * 89))), BEGIN.plus(DAY * 81), "but not to the end");
    }

    /// Case 34.
    #[test]
    fn pauses_double_up_to_six_hours_and_an_hour_sees_five_attempts() {
        let minutes: Vec<u64> = (1..=10).map(|failures| pause(failures, 0.0).as_secs() / 60).collect();
        assert_eq!(minutes, [3, 6, 12, 24, 48, 96, 192, 360, 360, 360]);
        assert!(minutes[..4].iter().sum::<u64>() < 60 && minutes[..5].iter().sum::<u64>() > 60);
        assert_eq!(pause(1, 1.0), FIRST_PAUSE.mul_f64(1.25), "jitter only adds");
        assert_eq!(pause(u32::MAX, 0.0), LONGEST_PAUSE);
    }

    #[test]
    fn who_asks_decides_whether_a_pause_holds() {
        let now = BEGIN.plus(DAY * 61);
        let (kept, later) = (certificate(), now.plus(DAY));
        let fresh = BEGIN.plus(DAY);
        let of = |occasion, kept, attempts: Option<&AcmeAttempts>, now| decide(occasion, kept, None, attempts, now);
        use Occasion::{Asked, Look, Reload, Start};
        // Not due.
        assert_eq!(of(Look, Some(&kept), None, fresh), Decision::Keep);
        assert_eq!(of(Asked, Some(&kept), None, fresh), Decision::Obtain);
        // Due, with a certificate that is still good.
        assert_eq!(of(Look, Some(&kept), None, now), Decision::Obtain);
        assert_eq!(of(Start, Some(&kept), None, now), Decision::Keep);
        assert_eq!(of(Reload, Some(&kept), None, now), Decision::Keep);
        // Within a pause.
        let own = attempts(2, later, false);
        assert_eq!(of(Look, Some(&kept), Some(&own), now), Decision::Wait(own.clone()));
        assert_eq!(of(Asked, Some(&kept), Some(&own), now), Decision::Obtain);
        assert_eq!(of(Start, None, Some(&own), now), Decision::Obtain);
        let many = attempts(5, later, false);
        assert_eq!(of(Start, None, Some(&many), now), Decision::Wait(many.clone()));
        let named = attempts(1, later, true);
        for occasion in [Look, Asked, Start] {
            assert_eq!(of(occasion, None, Some(&named), now), Decision::Wait(named.clone()), "{occasion:?}");
            assert_eq!(of(occasion, None, Some(&named), later), Decision::Obtain, "{occasion:?}, when it is over");
        }
    }
}
