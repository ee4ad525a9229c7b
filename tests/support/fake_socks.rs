//! A SOCKS5 proxy on a loopback port that can be told how to behave: serve, ask for a password, hang, lie, refuse, or die in
//! the middle of a stream. It tells what it was asked for, and in which form.
//!
//! Included by test binaries with `#[path]`. Names lead where the test says, so that no name is ever looked up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use flm::telemetry::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should, without authentication.
    Serves,
    /// As it should, for this user and password.
    Wants(&'static str, &'static str),
    /// Says these bytes to whoever connects, and closes.
    Says(&'static [u8]),
    /// Takes the connection and is silent.
    HangsAtMethod,
    /// Agrees on no authentication, reads the destination, and is silent.
    HangsAtReply,
    /// Answers CONNECT with this code.
    Refuses(u8),
    /// Connects, hands on this many bytes of the answer, and closes.
    DiesAfter(usize),
}

/// What it was asked to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// ATYP: 1 and 4 are addresses, 3 is a name.
    pub(crate) kind: u8,
    pub(crate) host: String,
    pub(crate) port: u16,
}

struct Shared {
    manner: Mutex<Manner>,
    asked: Mutex<Vec<Target>>,
    connections: AtomicUsize,
    leads: HashMap<String, SocketAddr>,
}

/// A running one; ends when it is dropped.
pub(crate) struct FakeSocks {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Tasks,
}

impl FakeSocks {
    /// On a free port.
    pub(crate) async fn start(manner: Manner, leads: &[(&str, SocketAddr)]) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), manner, leads).await
    }

    /// At this address, which an earlier one may have had.
    pub(crate) async fn start_at(address: SocketAddr, manner: Manner, leads: &[(&str, SocketAddr)]) -> Self {
        let listener = TcpListener::bind(address).await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            manner: Mutex::new(manner),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            leads: leads.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect(),
        });
        let tasks = Tasks::new();
        let (own, inner) = (shared.clone(), tasks.clone());
        tasks.spawn_until_end("socks", async move {
            while let Ok((stream, _)) = listener.accept().await {
                own.connections.fetch_add(1, Ordering::SeqCst);
                inner.spawn_until_end("socks connection", serve(own.clone(), stream));
            }
        });
        Self { address, shared, tasks }
    }

    /// Behaves like this from the next connection on.
    pub(crate) fn set(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// What it was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<Target> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections that it took.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes everything and frees the port.
    pub(crate) async fn end(self) -> SocketAddr {
        self.tasks.shutdown(std::time::Duration::from_secs(5)).await;
        self.address
    }
}

impl Drop for FakeSocks {
    fn drop(&mut self) {
        self.tasks.ending().cancel();
    }
}

async fn serve(shared: Arc<Shared>, mut client: TcpStream) {
    // A client that leaves in the middle is no matter for a proxy.
    let _left = converse(&shared, &mut client).await;
}

async fn converse(shared: &Shared, client: &mut TcpStream) -> std::io::Result<()> {
    let manner = shared.manner.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match &manner {
        Manner::Says(bytes) => {
            client.write_all(bytes).await?;
            client.shutdown().await?;
            // What was not read would turn the close into a reset, which may overtake the words.
            client.read_to_end(&mut Vec::new()).await?;
            return Ok(());
        }
        Manner::HangsAtMethod => return std::future::pending().await,
        _ => {}
    }
    assert_eq!(client.read_u8().await?, 5, "the version");
    let mut methods = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut methods).await?;
    if let Manner::Wants(user, password) = &manner {
        if !methods.contains(&2) {
            return client.write_all(&[5, 0xFF]).await;
        }
        client.write_all(&[5, 2]).await?;
        assert_eq!(client.read_u8().await?, 1, "the version of RFC 1929");
        let mut given = Vec::new();
        for _ in 0..2 {
            let mut part = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut part).await?;
            given.push(part);
        }
        let right = given == [user.as_bytes(), password.as_bytes()];
        client.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Ok(());
        }
    } else {
        client.write_all(&[5, 0]).await?;
    }
    let target = read_target(client).await?;
    let lead = shared.leads.get(&target.host).copied();
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(target);
    match (&manner, lead) {
        (Manner::HangsAtReply, _) => std::future::pending().await,
        (Manner::Refuses(code), _) => client.write_all(&[5, *code, 0, 1, 0, 0, 0, 0, 0, 0]).await,
        (_, None) => client.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).await,
        (_, Some(lead)) => {
            let mut server = TcpStream::connect(lead).await?;
            client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
            match manner {
                Manner::DiesAfter(bytes) => hand_on(client, &mut server, bytes).await,
                _ => tokio::io::copy_bidirectional(client, &mut server).await.map(drop),
            }
        }
    }
}

async fn read_target(client: &mut TcpStream) -> std::io::Result<Target> {
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    assert_eq!(head[..3], [5, 1, 0], "CONNECT");
    let host = match head[3] {
        1 => std::net::Ipv4Addr::from_bits(client.read_u32().await?).to_string(),
        4 => std::net::Ipv6Addr::from_bits(client.read_u128().await?).to_string(),
        3 => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).expect("UTF-8")
        }
        other => panic!("an address of kind {other}"),
    };
    Ok(Target { kind: head[3], host, port: client.read_u16().await? })
}

/// Hands on what the client asks, and so many bytes of the answer.
async fn hand_on(client: &mut TcpStream, server: &mut TcpStream, bytes: usize) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut answer = from_server.take(bytes as u64);
    tokio::select! {
        copied = tokio::io::copy(&mut answer, &mut to_client) => copied.map(drop),
        copied = tokio::io::copy(&mut from_client, &mut to_server) => copied.map(drop),
    }
}
