//! An order: from the account to the chain (RFC 8555 §7.4), within bounded time and with progress.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};

use super::account;
use super::client::{Client, is_problem, with_nonces};
use super::dns_01::{self, Placed};
use super::error::{AcmeError, Problem};
use super::http_01;
use super::plan::{Challenge, Plan, record_name};
use super::provider::Record;
use crate::tls::issuing::{self, Issued};
use crate::tls::supply::{Progress, Supply};
use crate::types::text::escape;

/// How long an attempt may take (SPEC §6); what a TXT record takes to appear comes on top.
const LIMIT: Duration = Duration::from_secs(90);
/// How the directory is asked whether it is done: it says itself when, else ever more rarely.
const POLLING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(300)).backoff(1.6).timeout(Duration::from_secs(75));

/// What proves one domain.
pub(super) struct Proof {
    /// The domain as it was ordered, wildcard included.
    domain: String,
    /// Of the challenge.
    pub(super) token: String,
    /// Answered over HTTP.
    pub(super) key_authorization: String,
    /// Answered by DNS.
    dns_value: String,
}

/// Obtains a certificate. Dropping the future ends it; what was put into the world is taken away then.
///
/// # Errors
/// See [`AcmeError`].
pub(super) async fn obtain(
    supply: &Supply,
    plan: &Plan,
    client: &Client,
    replaces: Option<CertificateIdentifier<'static>>,
    progress: &Progress,
) -> Result<Issued, AcmeError> {
    let (progress, last) = followed(progress);
    let attempt = Attempt { supply, plan, client, progress: &progress };
    within(limit(&plan.challenge), &last, attempt.run(replaces)).await
}

/// How long an attempt may take that proves its domains so.
fn limit(challenge: &Challenge) -> Duration {
    match challenge {
        Challenge::Http01 => LIMIT,
        Challenge::Dns01(dns) => LIMIT + dns.propagation,
    }
}

/// The same progress, and the last step that it told.
fn followed(progress: &Progress) -> (Progress, Arc<Mutex<String>>) {
    let last = Arc::new(Mutex::new("nothing yet".to_owned()));
    let (noted, progress) = (last.clone(), progress.clone());
    let followed = Progress::new(move |step| {
        step.clone_into(&mut noted.lock().unwrap_or_else(PoisonError::into_inner));
        progress.tell(step);
    });
    (followed, last)
}

/// Ends an attempt at its limit, and says what it was at then.
async fn within<T>(
    limit: Duration,
    last: &Mutex<String>,
    attempt: impl Future<Output = Result<T, AcmeError>>,
) -> Result<T, AcmeError> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => {
            let step = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Err(AcmeError::Slow { limit, step })
        }
    }
}

struct Attempt<'a> {
    supply: &'a Supply,
    plan: &'a Plan,
    client: &'a Client,
    progress: &'a Progress,
}

impl Attempt<'_> {
    async fn run(&self, replaces: Option<CertificateIdentifier<'static>>) -> Result<Issued, AcmeError> {
        self.progress.tell("asking the ACME directory for an order");
        let mut order = self.order(replaces).await?;
        let proofs = self.proofs(&mut order).await?;
        // Nothing to prove when the directory remembers an earlier proof.
        if !proofs.is_empty() {
            self.prove(&mut order, &proofs).await?;
        }
        self.progress.tell("asking for the certificate");
        let (request, key) =
            issuing::request(self.plan.aim.domains.clone()).map_err(|error| AcmeError::Inside(error.to_string()))?;
        self.asked("the request for the certificate", with_nonces!(order.finalize_csr(&request).await))?;
        let chain = with_nonces!(order.poll_certificate(&POLLING).await);
        Ok(Issued { chain: self.asked("the certificate", chain)?, key })
    }

    fn asked<T>(&self, step: &'static str, outcome: Result<T, Error>) -> Result<T, AcmeError> {
        outcome.map_err(|error| self.client.error(step, &error))
    }

    async fn order(&self, replaces: Option<CertificateIdentifier<'static>>) -> Result<Order, AcmeError> {
        let (store, now) = (&self.supply.store, self.supply.clock.wall());
        let mut account = account::ready(store, self.plan, self.client, now).await?;
        let (mut replaces, mut registered) = (replaces, false);
        loop {
            let error = match self.new_order(&account, replaces.clone()).await {
                Ok(order) => return Ok(order),
                Err(error) => error,
            };
            if account::is_gone(&error) && !registered {
                self.progress.tell("the ACME directory does not know the account any more: making another one");
                account = account::register(store, self.plan, self.client, now).await?;
                registered = true;
            } else if replaces.is_some() && !is_problem(&error, "rateLimited") {
                // It may dislike the certificate that is to be replaced, or not know of replacing at all (RFC 9773 §5).
                tracing::debug!(%error, "the order was refused as a replacement: asking for a plain one");
                replaces = None;
            } else {
                return Err(self.client.error("the order", &error));
            }
        }
    }

    async fn new_order(
        &self,
        account: &Account,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Order, Error> {
        let identifiers: Vec<Identifier> = self.plan.aim.domains.iter().cloned().map(Identifier::Dns).collect();
        let mut order = NewOrder::new(&identifiers);
        if let Some(replaces) = replaces {
            order = order.replaces(replaces);
        }
        with_nonces!(account.new_order(&order).await)
    }

    /// What has to be proved.
    async fn proofs(&self, order: &mut Order) -> Result<Vec<Proof>, AcmeError> {
        let wanted = self.challenge_type();
        with_nonces!(proofs_of(order, &wanted).await)
            .map_err(|error| self.client.error("what is to be proved", &error))?
            .into_iter()
            .map(|offered| {
                offered.map_err(|(domain, offered)| AcmeError::NotOffered {
                    domain,
                    challenge: self.plan.challenge.name(),
                    offered,
                })
            })
            .collect()
    }

    async fn prove(&self, order: &mut Order, proofs: &[Proof]) -> Result<(), AcmeError> {
        match &self.plan.challenge {
            Challenge::Http01 => {
                let _answered = http_01::answer(&self.supply.challenges, proofs);
                self.checked(order).await
            }
            Challenge::Dns01(dns) => {
                let mut records = Vec::with_capacity(proofs.len());
                for proof in proofs {
                    records.push(Record { name: record_name(&proof.domain)?, value: proof.dns_value.clone() });
                }
                // Dropped by every way out, which has them removed.
                let mut placed = Vec::with_capacity(records.len());
                for record in &records {
                    self.progress.tell(&format!("setting the TXT record {}", record.name));
                    placed.push(Placed::set(dns.hand(self.supply), record.clone()).await?);
                }
                dns_01::visible(dns, &self.supply.egress, &records, self.progress).await?;
                let checked = self.checked(order).await;
                for record in placed {
                    record.remove().await;
                }
                checked
            }
        }
    }

    /// Has the directory look, and waits until it has.
    async fn checked(&self, order: &mut Order) -> Result<(), AcmeError> {
        let names = self.plan.aim.domains.join(", ");
        self.progress.tell(&format!("the ACME directory checks {names} by {}", self.plan.challenge.name()));
        let wanted = self.challenge_type();
        self.asked("to look at the challenges", set_ready(order, &wanted).await)?;
        let polled = with_nonces!(order.poll_ready(&POLLING).await);
        match polled {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) | Err(Error::Api(_)) => Err(self.why_not(order, polled.err()).await),
            Err(Error::Timeout(_)) => Err(AcmeError::Slow {
                limit: LIMIT,
                step: format!("the ACME directory checks {names} by {}", self.plan.challenge.name()),
            }),
            Err(error) => Err(self.client.error("the state of the order", &error)),
        }
    }

    /// Which domain failed, and why: the order says less than its parts.
    async fn why_not(&self, order: &mut Order, error: Option<Error>) -> AcmeError {
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if with_nonces!(authorization.refresh().await.map(|_| ())).is_err() {
                continue;
            }
            let failed = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
            if let Some(problem) = failed {
                let domain = escape(&authorization.identifier().to_string()).into_owned();
                let challenge = self.plan.challenge.name();
                return AcmeError::NotValidated { domain, challenge, problem: Problem::of(problem) };
            }
        }
        match error {
            Some(error) => self.client.error("the check of the domains", &error),
            None => AcmeError::Refused {
                step: "the check of the domains",
                problem: Problem { kind: "unknown".to_owned(), detail: "it does not say why".to_owned() },
                retry: None,
                skew: None,
            },
        }
    }

    fn challenge_type(&self) -> ChallengeType {
        match self.plan.challenge {
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::Dns01(_) => ChallengeType::Dns01,
        }
    }
}

/// What proves a domain, or the domain with what is offered instead.
type Offered = Result<Proof, (String, String)>;

async fn proofs_of(order: &mut Order, wanted: &ChallengeType) -> Result<Vec<Offered>, Error> {
    let mut proofs = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let domain = authorization.identifier().to_string();
        let offered: Vec<String> =
            authorization.challenges.iter().map(|challenge| format!("{:?}", challenge.r#type)).collect();
        proofs.push(match authorization.challenge(wanted.clone()) {
            Some(challenge) => {
                let authorized = challenge.key_authorization();
                Ok(Proof {
                    domain,
                    token: challenge.token.clone(),
                    key_authorization: authorized.as_str().to_owned(),
                    dns_value: authorized.dns_value(),
                })
            }
            None => Err((domain, escape(&offered.join(", ")).into_owned())),
        });
    }
    Ok(proofs)
}

async fn set_ready(order: &mut Order, wanted: &ChallengeType) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        if let Some(mut challenge) = authorization.challenge(wanted.clone()) {
            with_nonces!(challenge.set_ready().await)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::net::egress::Egress;
    use crate::telemetry::tasks::Tasks;
    use crate::tls::acme::plan::{Surroundings, tests::settings};
    use crate::types::clock::Clock;

    fn challenge(pairs: &[(&str, &str)]) -> Challenge {
        let whole = [("acme.domains", "a.example"), ("acme.contact", "ops@a.example"), ("acme.agree_tos", "true")];
        let around = Surroundings {
            variable: &|_: &str| None,
            egress: Egress::direct(),
            tasks: Tasks::new(),
            clock: Clock::system(),
        };
        Plan::read(&settings(&[&whole[..], pairs].concat()), &around).expect("a plan").challenge
    }

    /// Time is the test's own: it moves on when everybody waits.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_has_ninety_seconds_and_then_says_what_it_was_at() {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let progress = {
            let heard = heard.clone();
            Progress::new(move |step| heard.lock().expect("not poisoned").push(step.to_owned()))
        };
        let (progress, last) = followed(&progress);
        let hangs = async {
            progress.tell("asking for the certificate");
            std::future::pending::<Result<(), AcmeError>>().await
        };
        let begin = Instant::now();
        let error = within(limit(&challenge(&[])), &last, hangs).await.expect_err("it hangs");
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(90) && took < Duration::from_secs(91), "{took:?}");
        assert!(error.to_string().contains("within 90 s; the last step was: asking for the certificate"), "{error}");
        assert_eq!(*heard.lock().expect("not poisoned"), ["asking for the certificate"], "told as it came");
        assert!(error.hint().contains("tried again by itself"), "{}", error.hint());
    }

    #[test]
    fn a_txt_record_has_its_own_time_to_appear() {
        let by_hook =
            [("acme.challenge", "dns-01"), ("acme.dns.command", "/bin/true"), ("acme.dns.propagation_timeout", "150s")];
        assert_eq!(limit(&challenge(&by_hook)), Duration::from_secs(90 + 150));
    }
}
