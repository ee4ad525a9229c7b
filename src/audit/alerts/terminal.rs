//! The console: its inbox, and a notification of every terminal that shows a console (SPEC §5.10, §9).

use super::{Again, Fault, Message, Tools};
use crate::types::alert::InboxAlert;
use crate::types::live::LiveEvent;
use crate::types::text::redact_keys;

/// Puts each group into the inbox and tells the consoles.
pub(super) async fn deliver(tools: &Tools, message: &Message) -> Result<(), Fault> {
    for group in &message.groups {
        let newest = group.quoted.last().map(|row| &row.event);
        let alert = InboxAlert {
            number: 0,
            at: group.last_at,
            kind: group.kind,
            severity: group.severity,
            events: group.events,
            first: group.first,
            last: group.last,
            address: newest.and_then(|event| event.address),
            details: newest.map(|event| redact_keys(&event.details).into_owned()).unwrap_or_default(),
            read: None,
        };
        // A store that only reads keeps nobody from seeing it now.
        let (stored, fault) = match tools.store.add_inbox_alert(alert.clone()).await {
            Ok(stored) => (stored, None),
            Err(error) => (alert, Some(Fault::new(Again::Never, error.to_string()))),
        };
        tools.hub.publish(LiveEvent::Alert(Box::new(stored)));
        if let Some(fault) = fault {
            return Err(fault);
        }
    }
    Ok(())
}
