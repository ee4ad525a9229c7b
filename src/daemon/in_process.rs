//! An owner on a thread of this process, for `--in-process`, the demo and tests: a front end that waits for its
//! terminal never holds it up.

use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::owner::{Owner, OwnerOptions, Start};
use crate::control::dialer::{self, Dialer};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// A running owner. Dropping it tells it to end and waits: its listeners drain first.
#[derive(Debug)]
pub struct InProcess {
    dialer: Dialer,
    ending: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl InProcess {
    /// Starts an owner; `None` when another process owns the home already.
    ///
    /// # Errors
    /// Of [`Owner::start`], and when the system gives no thread.
    pub async fn start(mut options: OwnerOptions) -> Outcome<Option<Self>> {
        let (dialer, incoming) = dialer::pair();
        options.incoming = Some(incoming);
        let (tell, told) = oneshot::channel();
        let no_thread = |error: std::io::Error| {
            Failure::new(ErrorCode::Internal, format!("the system gives no thread for the proxy: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let thread = std::thread::Builder::new()
            .name("flm-owner".to_owned())
            .spawn(move || runtime.block_on(run(options, tell)))
            .map_err(no_thread)?;
        let started = told.await.unwrap_or_else(|_panicked| {
            Err(Failure::new(ErrorCode::Internal, "the proxy could not start inside this process"))
        })?;
        Ok(started.map(|ending| Self { dialer, ending, thread: Some(thread) }))
    }

    /// Whether it has ended, because somebody told it to.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Opens connections to it.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        self.dialer.clone()
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.ending.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the proxy panicked");
        }
    }
}

async fn run(options: OwnerOptions, tell: oneshot::Sender<Outcome<Option<CancellationToken>>>) {
    let (answer, owner) = match Owner::start(options).await {
        Ok(Start::Owner(owner)) => (Ok(Some(owner.ending())), Some(owner)),
        Ok(Start::OwnedByAnother) => (Ok(None), None),
        Err(failure) => (Err(failure), None),
    };
    // Whoever asked may have gone meanwhile; then nobody will ever end this owner.
    let wanted = tell.send(answer).is_ok();
    if let Some(owner) = owner {
        if !wanted {
            owner.ending().cancel();
        }
        owner.run().await;
    }
}
