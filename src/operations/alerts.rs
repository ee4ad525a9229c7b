//! Alert channels, what became of their alerts, and the console's inbox (SPEC §5.10).

use std::path::Path;

use super::context::{Context, blocking_panicked};
use crate::audit::alerts::{Tools, try_channel};
use crate::config::files;
use crate::net::web_address::WebAddress;
use crate::types::alert::{
    AlertChannel, AlertRules, AlertTarget, ChannelId, ChannelView, DeliveryView, Inbox, PrivateHosts,
};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::alerts::{
    AddAlertChannel, ChannelChanges, ChannelSettled, EditAlertChannel, ListAlertChannels, ListDeliveries, ListInbox,
    MarkRead, RemoveAlertChannel, SecretChange, TestAlertChannel,
};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::live::Noun;
use crate::types::secret::Secret;
use crate::types::text::{escape, hex};

/// Channels of one home: each has a task and a connection.
const MOST_CHANNELS: usize = 32;
/// Shortest signing secret that is taken: 128 bits as letters.
const SHORTEST_SECRET: usize = 16;
/// Arguments of a command, and the length of each.
const MOST_ARGUMENTS: (usize, usize) = (64, 4_096);

/// Lists channels, without secrets.
pub async fn list(context: &Context, _call: ListAlertChannels) -> Outcome<Vec<ChannelView>> {
    let mut views = Vec::new();
    for channel in context.stores.security.alert_channels().await? {
        views.push(view(context, &channel).await?);
    }
    Ok(views)
}

/// Adds a channel; it works when this returns.
///
/// # Errors
/// `INVALID_ARGUMENT` for a name that is taken and for what cannot work, with the reason.
pub async fn add(context: &Context, call: AddAlertChannel) -> Outcome<ChannelSettled> {
    let (target, secret) = settled(call.target).await?;
    check_rules(&call.rules)?;
    let _changing = context.begin_change().await?;
    let channels = context.stores.security.alert_channels().await?;
    if channels.iter().any(|channel| channel.id == call.id) {
        return Err(Failure::new(ErrorCode::InvalidArgument, format!("there is an alert channel {} already", call.id))
            .hint(format!("change it with: flm alerts edit {}; or give another --id", call.id)));
    }
    if channels.len() >= MOST_CHANNELS {
        return Err(Failure::new(ErrorCode::InvalidArgument, format!("{MOST_CHANNELS} alert channels are the most"))
            .hint("remove one with: flm alerts remove ID"));
    }
    let channel = AlertChannel {
        id: call.id,
        target,
        rules: call.rules,
        created: context.clock.wall(),
        through: context.audit.head().sequence,
    };
    put(context, &channel, "added").await?;
    Ok(ChannelSettled { view: view(context, &channel).await?, secret })
}

/// Changes what is given; in force when this returns. What waits already is told by the new way.
///
/// # Errors
/// `NOT_FOUND`, and `INVALID_ARGUMENT` for what its kind does not have or cannot work.
pub async fn edit(context: &Context, call: EditAlertChannel) -> Outcome<ChannelSettled> {
    let _changing = context.begin_change().await?;
    let before = find(context, &call.id).await?;
    let rules = changed_rules(before.rules, &call.changes);
    check_rules(&rules)?;
    let (target, secret) = settled(changed_target(before.target, *call.changes)?).await?;
    // Only what happens from now on is measured by the new rules.
    let through = context.audit.head().sequence;
    let channel = AlertChannel { target, rules, through, ..before };
    put(context, &channel, "changed").await?;
    Ok(ChannelSettled { view: view(context, &channel).await?, secret })
}

/// Removes a channel; it tells nothing more when this returns.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn remove(context: &Context, call: RemoveAlertChannel) -> Outcome<ChannelView> {
    let _changing = context.begin_change().await?;
    let channel = find(context, &call.id).await?;
    let view = view(context, &channel).await?;
    context.stores.security.remove_alert_channel(&call.id).await?;
    publish(context).await?;
    record(context, &channel, "removed").await;
    Ok(view)
}

/// Tries a channel, once and at once.
///
/// # Errors
/// `NOT_FOUND`, and `IO_ERROR` with the reason when the alert did not arrive.
pub async fn test(context: &Context, call: TestAlertChannel) -> Outcome<DeliveryView> {
    let channel = find(context, &call.id).await?;
    let delivery = try_channel(&tools(context), &channel).await;
    match &delivery.fault {
        None => Ok(delivery),
        Some(why) => Err(Failure::new(ErrorCode::IoError, format!("the test alert of {} failed: {why}", call.id))
            .hint(format!("see the channel with: flm alerts list; change it with: flm alerts edit {}", call.id))),
    }
}

/// What became of alerts.
///
/// # Errors
/// `NOT_FOUND` for a channel that is not there and left nothing.
pub async fn deliveries(context: &Context, call: ListDeliveries) -> Outcome<Vec<DeliveryView>> {
    let deliveries = context.stores.security.deliveries(call.channel.clone(), call.limit).await?;
    if let (true, Some(id)) = (deliveries.is_empty(), &call.channel) {
        find(context, id).await?;
    }
    Ok(deliveries)
}

/// The newest alerts of the inbox.
pub async fn inbox(context: &Context, call: ListInbox) -> Outcome<Inbox> {
    Ok(context.stores.security.inbox(call.limit).await?)
}

/// Marks alerts as read.
pub async fn mark_read(context: &Context, call: MarkRead) -> Outcome<u64> {
    let marked = context.stores.security.mark_alerts_read(call.numbers, context.clock.wall()).await?;
    if marked > 0 {
        context.changed(Noun::Alerts);
    }
    Ok(marked)
}

/// What channels deliver with.
#[must_use]
pub fn tools(context: &Context) -> Tools {
    Tools {
        egress: context.egress.clone(),
        store: context.stores.security.clone(),
        hub: context.hub.clone(),
        clock: context.clock.clone(),
    }
}

/// Makes the running channels those of the store.
pub(super) async fn publish(context: &Context) -> Outcome<()> {
    if let Some(live) = &context.live {
        live.alerts.set(context.stores.security.alert_channels().await?);
    }
    context.changed(Noun::Alerts);
    Ok(())
}

async fn put(context: &Context, channel: &AlertChannel, what: &str) -> Outcome<()> {
    context.stores.security.put_alert_channel(channel.clone()).await?;
    publish(context).await?;
    record(context, channel, what).await;
    Ok(())
}

async fn record(context: &Context, channel: &AlertChannel, what: &str) {
    let details =
        format!("alert channel {} ({}, {}) {what}", channel.id, channel.target.kind().name(), place(&channel.target));
    context.record(AuditKind::PolicyChanged, Severity::Medium, details).await;
}

async fn find(context: &Context, id: &ChannelId) -> Outcome<AlertChannel> {
    let channels = context.stores.security.alert_channels().await?;
    let known: Vec<_> = channels.iter().map(|channel| channel.id.as_str()).collect();
    let hint = if known.is_empty() {
        "add one with: flm alerts add webhook --id NAME --url URL".to_owned()
    } else {
        format!("there are: {}", known.join(", "))
    };
    channels
        .into_iter()
        .find(|channel| channel.id == *id)
        .ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("there is no alert channel {id}")).hint(hint))
}

async fn view(context: &Context, channel: &AlertChannel) -> Outcome<ChannelView> {
    let last = context.stores.security.deliveries(Some(channel.id.clone()), 1).await?.pop();
    Ok(ChannelView {
        id: channel.id.clone(),
        kind: channel.target.kind(),
        place: place(&channel.target),
        private: match &channel.target {
            AlertTarget::Webhook { private, .. } | AlertTarget::Ntfy { private, .. } => Some(*private),
            AlertTarget::Command { .. } | AlertTarget::Terminal => None,
        },
        rules: channel.rules.clone(),
        created: channel.created,
        waiting: context.live.as_ref().map_or(0, |live| live.alerts.waiting(&channel.id)),
        last,
    })
}

/// Where alerts go, without what lets others in: path and query of a webhook, all but the first letters of a topic.
fn place(target: &AlertTarget) -> String {
    let origin = |url: &str| WebAddress::parse(url).map_or_else(|_| "?".to_owned(), |address| address.origin());
    match target {
        AlertTarget::Webhook { url, .. } => format!("{}/…", escape(&origin(url))),
        AlertTarget::Ntfy { server, topic, .. } => {
            let beginning: String = topic.chars().take(2).collect();
            format!("{}/{}…", escape(&origin(server)), escape(&beginning))
        }
        AlertTarget::Command { program, arguments } => {
            let words: Vec<_> = std::iter::once(program).chain(arguments).map(|word| escape(word)).collect();
            words.join(" ")
        }
        AlertTarget::Terminal => "the console".to_owned(),
    }
}

fn check_rules(rules: &AlertRules) -> Outcome<()> {
    if rules.group > AlertRules::LONGEST_GROUP {
        return Err(Failure::new(ErrorCode::InvalidArgument, "equal events are grouped for a day at most")
            .hint("give a span such as 60s or 1h; 0s groups nothing"));
    }
    if !(1..=AlertRules::MOST_PER_HOUR).contains(&rules.per_hour) {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("{} alerts an hour is no cap that a channel can have", rules.per_hour),
        )
        .hint(format!("give a number from 1 to {}; to stop a channel, switch it off", AlertRules::MOST_PER_HOUR)));
    }
    Ok(())
}

fn changed_rules(before: AlertRules, changes: &ChannelChanges) -> AlertRules {
    AlertRules {
        severity: changes.severity.unwrap_or(before.severity),
        kinds: changes.kinds.clone().unwrap_or(before.kinds),
        group: changes.group.unwrap_or(before.group),
        per_hour: changes.per_hour.unwrap_or(before.per_hour),
        state: changes.state.unwrap_or(before.state),
    }
}

/// The target with its changes; what its kind does not have is refused. A webhook without a secret gets a new one.
fn changed_target(before: AlertTarget, changes: ChannelChanges) -> Outcome<AlertTarget> {
    let ChannelChanges { url, secret, server, topic, token, private, program, arguments, .. } = changes;
    let kind = before.kind();
    let given = [
        ("a URL", url.is_some(), matches!(before, AlertTarget::Webhook { .. })),
        ("a signing secret", secret != SecretChange::Keep, matches!(before, AlertTarget::Webhook { .. })),
        ("a server", server.is_some(), matches!(before, AlertTarget::Ntfy { .. })),
        ("a topic", topic.is_some(), matches!(before, AlertTarget::Ntfy { .. })),
        ("a token", token.is_some(), matches!(before, AlertTarget::Ntfy { .. })),
        ("a host", private.is_some(), matches!(before, AlertTarget::Webhook { .. } | AlertTarget::Ntfy { .. })),
        ("a program", program.is_some(), matches!(before, AlertTarget::Command { .. })),
        ("arguments", arguments.is_some(), matches!(before, AlertTarget::Command { .. })),
    ];
    if let Some((what, ..)) = given.into_iter().find(|(_, given, has)| *given && !has) {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("a channel of the kind {} has not {what}", kind.name()),
        )
        .hint("the kind of a channel cannot change: remove it and add another"));
    }
    Ok(match before {
        AlertTarget::Webhook { url: old, private: had, secret: known } => AlertTarget::Webhook {
            url: url.unwrap_or(old),
            private: private.unwrap_or(had),
            secret: match secret {
                SecretChange::Keep => known,
                SecretChange::Renew => None,
                SecretChange::Set(secret) => Some(secret),
            },
        },
        AlertTarget::Ntfy { server: old, topic: old_topic, private: had, token: known } => AlertTarget::Ntfy {
            server: server.unwrap_or(old),
            topic: topic.unwrap_or(old_topic),
            private: private.unwrap_or(had),
            token: token.or(known).filter(|token| !token.expose().is_empty()),
        },
        AlertTarget::Command { program: old, arguments: had } => {
            AlertTarget::Command { program: program.unwrap_or(old), arguments: arguments.unwrap_or(had) }
        }
        AlertTarget::Terminal => AlertTarget::Terminal,
    })
}

/// Checks a target and completes it; answers the signing secret that was made for it, if one was.
async fn settled(target: AlertTarget) -> Outcome<(AlertTarget, Option<Secret>)> {
    match target {
        AlertTarget::Webhook { url, private, secret } => {
            check_url(&url, private)?;
            if let Some(short) = secret.as_ref().filter(|secret| secret.expose().trim().len() < SHORTEST_SECRET) {
                let length = short.expose().trim().len();
                return Err(Failure::new(
                    ErrorCode::InvalidArgument,
                    format!("a signing secret of {length} characters can be guessed"),
                )
                .hint(format!("give at least {SHORTEST_SECRET}, or none: then one is made")));
            }
            if let Some(secret) = secret {
                let secret = Secret::new(secret.expose().trim().to_owned());
                return Ok((AlertTarget::Webhook { url, private, secret: Some(secret) }, None));
            }
            let made = make_secret()?;
            Ok((AlertTarget::Webhook { url, private, secret: Some(made.clone()) }, Some(made)))
        }
        AlertTarget::Ntfy { server, topic, private, token } => {
            check_url(&server, private)?;
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if !(1..=64).contains(&topic.len()) || !topic.chars().all(plain) {
                return Err(Failure::new(ErrorCode::InvalidArgument, "the topic is not one that ntfy takes")
                    .hint("use 1 to 64 letters, digits, '-' and '_'; on a public server make it hard to guess"));
            }
            // ntfy takes JSON at the root of the server only.
            let server = format!("{}/", WebAddress::parse(&server).map(|address| address.origin()).unwrap_or(server));
            Ok((AlertTarget::Ntfy { server, topic, private, token }, None))
        }
        AlertTarget::Command { program, arguments } => {
            check_arguments(&arguments)?;
            let path = program.clone();
            tokio::task::spawn_blocking(move || check_program(Path::new(&path)))
                .await
                .map_err(|_| blocking_panicked("looking at the program"))??;
            Ok((AlertTarget::Command { program, arguments }, None))
        }
        AlertTarget::Terminal => Ok((AlertTarget::Terminal, None)),
    }
}

fn check_url(url: &str, private: PrivateHosts) -> Outcome<()> {
    let wrong = |why: String| Failure::new(ErrorCode::InvalidArgument, format!("the alert cannot go there: {why}"));
    let address = WebAddress::parse(url).map_err(|fault| {
        // The address itself may hold a secret, so it is not repeated.
        wrong(fault.to_string()).hint("write it as https://host/path")
    })?;
    let local = match address.host.parse() {
        Ok(ip) => !crate::types::address::is_public(ip),
        Err(_name) => address.host.eq_ignore_ascii_case("localhost"),
    };
    if local && private == PrivateHosts::Refused {
        return Err(wrong(format!("{} is not an address of the public internet", escape(&address.host)))
            .hint("if it is a receiver of your own, allow it with --private"));
    }
    Ok(())
}

fn check_arguments(arguments: &[String]) -> Outcome<()> {
    let (most, longest) = MOST_ARGUMENTS;
    if arguments.len() > most || arguments.iter().any(|argument| argument.len() > longest || argument.contains('\0')) {
        return Err(Failure::new(ErrorCode::InvalidArgument, "these arguments cannot be handed to a program")
            .hint(format!("give at most {most}, each of at most {longest} bytes")));
    }
    Ok(())
}

/// Blocks.
fn check_program(path: &Path) -> Outcome<()> {
    let wrong = |why: &str| {
        Failure::new(ErrorCode::InvalidArgument, format!("{} cannot be run: {why}", escape(&path.to_string_lossy())))
    };
    if !path.is_absolute() {
        return Err(wrong("it is not an absolute path").hint("programs are not looked for; write it from the root on"));
    }
    match files::program_fault(path)? {
        None => Ok(()),
        Some(why) => Err(wrong(why).hint("give a program that only you (or root) may write and that you may run")),
    }
}

/// 256 bits, marked so that scanners for secrets know what it is.
fn make_secret() -> Outcome<Secret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the system gives no random numbers: {error}")))?;
    Ok(Secret::new(format!("whsec_{}", hex(&bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(url: &str, secret: Option<&str>) -> AlertTarget {
        AlertTarget::Webhook {
            url: url.into(),
            private: PrivateHosts::Refused,
            secret: secret.map(|secret| Secret::new(secret.into())),
        }
    }

    #[tokio::test]
    async fn a_secret_is_made_where_none_is_given_and_a_short_one_is_refused() {
        let (target, made) = settled(webhook("https://alerts.example/x", None)).await.expect("fits");
        let made = made.expect("one is made");
        assert!(made.expose().starts_with("whsec_") && made.expose().len() == 70);
        let AlertTarget::Webhook { secret, .. } = target else { panic!("a webhook") };
        assert_eq!(secret, Some(made));
        let (_, made) = settled(webhook("https://alerts.example/x", Some("0123456789abcdef"))).await.expect("fits");
        assert_eq!(made, None, "what the operator knows is not shown again");
        let short = settled(webhook("https://alerts.example/x", Some("hunter2"))).await.expect_err("refused");
        assert!(!short.message.contains("hunter2"), "{}", short.message);
    }

    #[tokio::test]
    async fn a_refused_address_is_not_repeated_and_private_hosts_need_leave() {
        for url in ["https://u:hunter2@x/", "ftp://hunter2", "http://127.0.0.1/hunter2", "http://localhost/hunter2"] {
            let refused = settled(webhook(url, None)).await.expect_err("refused");
            assert!(!refused.message.contains("hunter2"), "{}", refused.message);
        }
        let allowed = AlertTarget::Webhook {
            url: "http://192.168.1.2/hook".into(),
            private: PrivateHosts::Allowed,
            secret: None,
        };
        settled(allowed).await.expect("the operator's own");
    }

    #[tokio::test]
    async fn a_program_must_be_there_runnable_and_safe_from_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("mail");
        let run = async || {
            let program = path.to_string_lossy().into_owned();
            settled(AlertTarget::Command { program, arguments: Vec::new() })
                .await
                .map(|_| ())
                .map_err(|error| error.message)
        };
        assert!(run().await.expect_err("is not there").contains("cannot be run"));
        files::replace(&path, b"#!/bin/sh\n", files::Audience::Owner).expect("writes");
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        mode(0o600);
        assert!(run().await.expect_err("not runnable").contains("not executable"));
        mode(0o702);
        assert!(run().await.expect_err("others may write").contains("others may write"));
        mode(0o700);
        assert_eq!(run().await, Ok(()));
        let relative = AlertTarget::Command { program: "mail".into(), arguments: Vec::new() };
        assert!(settled(relative).await.expect_err("relative").message.contains("absolute"));
    }

    #[test]
    fn what_a_kind_does_not_have_cannot_change() {
        let changes = ChannelChanges { url: Some("https://x/".into()), ..ChannelChanges::default() };
        let refused = changed_target(AlertTarget::Terminal, changes).expect_err("refused");
        assert!(refused.message.contains("terminal") && refused.message.contains("a URL"), "{}", refused.message);
        let renew = ChannelChanges { secret: SecretChange::Renew, ..ChannelChanges::default() };
        let AlertTarget::Webhook { secret, url, .. } =
            changed_target(webhook("https://x/", Some("0123456789abcdef")), renew).expect("fits")
        else {
            panic!("a webhook")
        };
        assert_eq!((secret, url.as_str()), (None, "https://x/"));
    }

    #[test]
    fn no_secret_is_in_what_is_shown() {
        assert_eq!(place(&webhook("https://hooks.example/T0/hunter2?k=hunter2", None)), "https://hooks.example/…");
        let ntfy = AlertTarget::Ntfy {
            server: "https://ntfy.sh/".into(),
            topic: "flm-hunter2".into(),
            private: PrivateHosts::Refused,
            token: Some(Secret::new("hunter2".into())),
        };
        assert_eq!(place(&ntfy), "https://ntfy.sh/fl…");
    }
}
