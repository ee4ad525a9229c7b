//! Looks before a listener is opened to others (SPEC §9.3). Changes nothing.

use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};

use super::context::{Context, blocking_panicked};
use super::policy;
use super::port_holder::holder_of_port;
use super::proxy;
use crate::tls::machine::Machine;
use crate::tls::modes::{self, Mode, Privacy};
use crate::types::calls::addresses::NetworkList;
use crate::types::calls::publish::{
    CheckPublish, ModeInfo, PortFinding, PortPurpose, PortState, PublishReport, WirePrivacy,
};
use crate::types::failure::Outcome;
use crate::types::listener::{Exposure, ListenerConfig};

/// Looks whether a listener could be started, and what would guard it.
///
/// # Errors
/// Of the stores, of settings that are none, and of a mode that there is not. What is in the way of the listener is no error: it is told.
pub async fn check(context: &Context, call: CheckPublish) -> Outcome<PublishReport> {
    let CheckPublish { config, unnamed } = call;
    let config = proxy::with_settings(&context.settings.load(), config, &unnamed)?;
    let mode = proxy::known_mode(&config.mode)?;
    let status = context.live.as_ref().map(|live| live.host.status());
    let ours: Vec<u16> = status
        .iter()
        .flat_map(|status| &status.listeners)
        .flat_map(|listener| [Some(listener.config.port), listener.config.https_port])
        .flatten()
        .collect();
    let wanted = wanted_ports(&config, mode);
    let bind = config.bind;
    let looked = tokio::task::spawn_blocking(move || {
        let ports = wanted.into_iter().map(|(port, purpose)| finding(bind, port, purpose, &ours)).collect();
        (Machine::now(), ports)
    });
    let (machine, ports): (Machine, Vec<PortFinding>) =
        looked.await.map_err(|_panicked| blocking_panicked("looking at the ports"))?;
    let keys = context.stores.security.keys().await?;
    let now = context.clock.wall();
    let in_force =
        keys.iter().filter(|key| key.view.revoked.is_none() && key.view.expires.is_none_or(|end| end > now)).count();
    let allowed = context.stores.security.networks(NetworkList::Allow).await?.len();
    Ok(PublishReport {
        exposure: status.map_or(Exposure::Local, |status| status.exposure),
        modes: modes::MODES.iter().map(|mode| info(mode)).collect(),
        addresses: machine.addresses().into_iter().filter(|address| !address.is_loopback()).collect(),
        names: machine.names.into_iter().filter(|name| name != "localhost").collect(),
        ports,
        privacy: if mode.suits(bind) { WirePrivacy::Kept } else { WirePrivacy::InClear },
        keys: in_force as u64,
        allowed: allowed as u64,
        policy: policy::stored(context).await?,
    })
}

fn info(mode: &Mode) -> ModeInfo {
    let privacy = match mode.privacy {
        Privacy::Encrypted => WirePrivacy::Kept,
        Privacy::Clear => WirePrivacy::InClear,
    };
    ModeInfo { name: mode.name.to_owned(), title: mode.title.to_owned(), privacy }
}

/// The ports that such a listener would take, as starting it decides.
fn wanted_ports(config: &ListenerConfig, mode: &Mode) -> Vec<(u16, PortPurpose)> {
    let mut ports = vec![(config.port, PortPurpose::Plain)];
    if mode.privacy == Privacy::Encrypted {
        let tls = config.https_port.or_else(|| mode.usual.https_port(config.port));
        ports.extend(tls.map(|port| (port, PortPurpose::Tls)));
    }
    ports
}

fn finding(bind: IpAddr, port: u16, purpose: PortPurpose, ours: &[u16]) -> PortFinding {
    let state = if ours.contains(&port) {
        PortState::Ours
    } else {
        match TcpListener::bind((bind, port)) {
            Ok(_let_go) => PortState::Free,
            Err(error) if error.kind() == ErrorKind::AddrInUse => PortState::Held {
                by: holder_of_port(port).map(|holder| format!("{} ({})", holder.program, holder.pid)),
                free: proxy::next_free_port(bind, port),
            },
            Err(error) if error.kind() == ErrorKind::PermissionDenied => PortState::Forbidden,
            Err(error) => PortState::Unusable { why: error.to_string() },
        }
    };
    PortFinding { port, purpose, state }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::types::listener::TlsMode;

    #[test]
    fn a_port_is_free_ours_held_by_a_named_program_or_of_no_use() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let held = TcpListener::bind((here, 0)).expect("binds");
        let port = held.local_addr().expect("an address").port();
        let state = |port, ours: &[u16]| finding(here, port, PortPurpose::Plain, ours).state;
        let PortState::Held { by, free } = state(port, &[]) else { panic!("it is held") };
        assert!(by.is_none_or(|by| by.contains(&std::process::id().to_string())) && free != Some(port));
        assert_eq!(state(port, &[port]), PortState::Ours);
        drop(held);
        assert_eq!(state(port, &[]), PortState::Free);
        // TEST-NET-1 (RFC 5737) is no address of any machine.
        let nowhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert!(matches!(finding(nowhere, 8484, PortPurpose::Plain, &[]).state, PortState::Unusable { .. }));
    }

    #[test]
    fn only_modes_with_tls_take_a_second_port() {
        let config = |mode: &str, https_port| ListenerConfig {
            mode: TlsMode(mode.to_owned()),
            port: 8484,
            https_port,
            ..ListenerConfig::default()
        };
        let ports = |config: ListenerConfig| {
            let mode = proxy::known_mode(&config.mode).expect("a mode");
            wanted_ports(&config, mode).into_iter().map(|(port, _)| port).collect::<Vec<_>>()
        };
        assert_eq!(ports(config(TlsMode::LOCAL_HTTP, Some(9))), [8484]);
        assert_eq!(ports(config(TlsMode::PACKAGED_CA, None)), [8484, 8485]);
        assert_eq!(ports(config(TlsMode::PACKAGED_CA, Some(9443))), [8484, 9443]);
    }

    #[test]
    fn the_ports_that_are_looked_at_are_those_that_a_start_takes() {
        let ports = |mode: &str, port| {
            let config = ListenerConfig { mode: TlsMode(mode.to_owned()), port, ..ListenerConfig::default() };
            let mode = proxy::known_mode(&config.mode).expect("a mode");
            wanted_ports(&config, mode).into_iter().map(|(port, _)| port).collect::<Vec<_>>()
        };
        assert_eq!(ports(TlsMode::HTTPS_ACME, 80), [80, 443], "those of the web");
        assert_eq!(ports(TlsMode::HTTPS_ACME, 8080), [8080, 8081]);
        assert_eq!(ports(TlsMode::PACKAGED_CA, 80), [80, 81]);
        assert_eq!(ports(TlsMode::PACKAGED_CA, 0), [0, 0], "a free port beside a free port");
    }
}
