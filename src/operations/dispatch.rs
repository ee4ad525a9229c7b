//! Runs an operation by its name: the one door of both kinds of owner, over the wire or without it.

use std::sync::Arc;

use bytes::Bytes;

use super::catalogue::{self, Operation};
use super::context::Context;
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
    let operation = catalogue::find(name).ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, format!("there is no operation {:?}", escape(name)))
            .hint("the program that asked is of another version than the proxy: restart the proxy")
    })?;
    refuse_changes(operation, permission)?;
    if operation.access == Access::Reads {
        return (operation.run)(context, arguments).await;
    }
    let tasks = context.tasks.clone();
    let run = (operation.run)(context, arguments);
    tasks.spawn("operation", run).await.map_err(|_panicked| {
        Failure::new(ErrorCode::Internal, format!("{name} failed inside FLM"))
            .hint("the log says more; please report it")
    })?
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
