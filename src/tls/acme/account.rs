//! The account at a directory: made once, kept in `security.db`, made anew when the directory knows it no longer.

use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};

use super::client::{Client, is_problem, with_nonces};
use super::error::AcmeError;
use super::plan::Plan;
use crate::storage::SecurityStore;
use crate::types::acme::AcmeAccount;
use crate::types::clock::UnixMillis;
use crate::types::secret::Secret;

/// The account that is kept; `None` when there is none, or none that can be read.
///
/// # Errors
/// Of the store, and when the directory does not answer.
pub(super) async fn kept(
    store: &SecurityStore,
    plan: &Plan,
    client: &Client,
) -> Result<Option<(Account, AcmeAccount)>, AcmeError> {
    let Some(stored) = store.acme_account(&plan.aim.directory, plan.binding_id()).await? else { return Ok(None) };
    let credentials: AccountCredentials = match serde_json::from_str(stored.credentials.expose()) {
        Ok(credentials) => credentials,
        Err(error) => {
            tracing::warn!(%error, "the stored ACME account cannot be read: another one is made");
            return Ok(None);
        }
    };
    let builder = Account::builder_with_http(client.boxed());
    match builder.from_credentials(credentials).await {
        Ok(account) => Ok(Some((account, stored))),
        Err(error @ (Error::Crypto | Error::KeyRejected)) => {
            tracing::warn!(%error, "the key of the stored ACME account cannot be used: another one is made");
            Ok(None)
        }
        Err(error) => Err(client.error("its list of services", &error)),
    }
}

/// The account to order with: the kept one, with the contacts of the plan, else a new one.
///
/// # Errors
/// Of the directory and the store.
pub(super) async fn ready(
    store: &SecurityStore,
    plan: &Plan,
    client: &Client,
    now: UnixMillis,
) -> Result<Account, AcmeError> {
    let Some((account, stored)) = kept(store, plan, client).await? else {
        return register(store, plan, client, now).await;
    };
    let contacts = plan.aim.contacts.join(",");
    if stored.contacts == contacts {
        return Ok(account);
    }
    let mails = mails(plan);
    let mails: Vec<&str> = mails.iter().map(String::as_str).collect();
    match with_nonces!(account.update_contacts(&mails).await) {
        Ok(()) => {
            store.put_acme_account(AcmeAccount { contacts, ..stored }).await?;
            Ok(account)
        }
        Err(error) if is_gone(&error) => register(store, plan, client, now).await,
        Err(error) => Err(client.error("other mail addresses for the account", &error)),
    }
}

/// Makes a new account and keeps it in place of the one before.
///
/// # Errors
/// Of the directory and the store.
pub(super) async fn register(
    store: &SecurityStore,
    plan: &Plan,
    client: &Client,
    now: UnixMillis,
) -> Result<Account, AcmeError> {
    let mails = mails(plan);
    let mails: Vec<&str> = mails.iter().map(String::as_str).collect();
    let wanted = NewAccount { contact: &mails, terms_of_service_agreed: true, only_return_existing: false };
    let binding = plan.binding.as_ref().map(|binding| ExternalAccountKey::new(binding.key_id.clone(), &binding.key));
    let made = with_nonces!(
        Account::builder_with_http(client.boxed()).create(&wanted, plan.aim.directory.clone(), binding.as_ref()).await
    );
    let (account, credentials) = made.map_err(|error| client.error("a new account", &error))?;
    let credentials = serde_json::to_string(&credentials).map_err(|error| AcmeError::Inside(error.to_string()))?;
    store
        .put_acme_account(AcmeAccount {
            directory: plan.aim.directory.clone(),
            binding: plan.binding_id().to_owned(),
            contacts: plan.aim.contacts.join(","),
            credentials: Secret::new(credentials),
            created: now,
        })
        .await?;
    Ok(account)
}

/// Whether the directory does not know the account any more, or has closed it (RFC 8555 §6.7, §7.3.6).
pub(super) fn is_gone(error: &Error) -> bool {
    is_problem(error, "accountDoesNotExist") || is_problem(error, "unauthorized")
}

fn mails(plan: &Plan) -> Vec<String> {
    plan.aim.contacts.iter().map(|contact| format!("mailto:{contact}")).collect()
}
