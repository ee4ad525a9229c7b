//! Runs an operation by its name: the one door of both kinds of owner, over the wire or without it.

use std::sync::Arc;

use bytes::Bytes;

use super::catalogue::{self, Operation, Run};
use super::context::Context;
use super::progress::{Line, Ongoing, lane};
use crate::types::calls::{Access, Permission};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

/// Runs an operation: JSON arguments in, JSON result out.
///
/// Dropping the future cancels an operation that only reads. One that changes something runs to its end in any
/// case, so that store, live state and audit log never disagree.
///
/// # Errors
/// The operation's own failure, `NOT_FOUND` for an unknown name, `READ_ONLY`, or `INVALID_ARGUMENT` for arguments
/// of the wrong shape.
pub async fn dispatch(context: Arc<Context>, name: &str, arguments: Bytes, permission: Permission) -> Outcome<Bytes> {
    let (operation, run) = match begin(&context, name, arguments.clone(), permission)? {
        Begun::Short(operation, run) => (operation, run),
        // Whoever asks so does not want to know how far it is.
        Begun::Long(mut ongoing) => loop {
            if let Line::Ended(outcome) = ongoing.next().await {
                return outcome;
            }
        },
    };
    if operation.access == Access::Reads {
        return run(context, arguments).await;
    }
    let tasks = context.tasks.clone();
    let running = run(context, arguments);
    tasks.spawn("operation", running).await.map_err(|_panicked| {
        Failure::new(ErrorCode::Internal, format!("{name} failed inside FLM"))
            .hint("the log says more; please report it")
    })?
}

/// Begins a long operation; `None` when the operation of that name answers once. Dropping what is begun ends it.
///
/// # Errors
/// As [`dispatch`], as far as it can be known before the operation runs.
pub fn dispatch_long(
    context: &Arc<Context>,
    name: &str,
    arguments: &Bytes,
    permission: Permission,
) -> Outcome<Option<Ongoing>> {
    Ok(match begin(context, name, arguments.clone(), permission)? {
        Begun::Short(..) => None,
        Begun::Long(ongoing) => Some(ongoing),
    })
}

type ShortRun = fn(Arc<Context>, Bytes) -> catalogue::Running;

enum Begun {
    Short(&'static Operation, ShortRun),
    Long(Ongoing),
}

fn begin(context: &Arc<Context>, name: &str, arguments: Bytes, permission: Permission) -> Outcome<Begun> {
    let operation = catalogue::find(name).ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, format!("there is no operation {:?}", escape(name)))
            .hint("the program that asked is of another version than the proxy: restart the proxy")
    })?;
    refuse_changes(operation, permission)?;
    Ok(match operation.run {
        Run::Short(run) => Begun::Short(operation, run),
        Run::Long(run) => {
            let (sender, receiver) = lane();
            Begun::Long(Ongoing::new(run(context.clone(), arguments, sender), receiver))
        }
    })
}

fn refuse_changes(operation: &Operation, permission: Permission) -> Outcome<()> {
    if permission == Permission::ReadOnly && operation.access > Access::Reads {
        return Err(Failure::new(
            ErrorCode::ReadOnly,
            format!("{} changes something, and this connection is read-only", operation.name),
        )
        .hint("start the console without --read-only to change things"));
    }
    Ok(())
}
