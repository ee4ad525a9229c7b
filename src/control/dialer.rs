//! In-memory connections between a front end and an owner in the same process.

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Bytes in flight each way: a page of a list, so that a console's call rarely waits for the server to read.
const BUFFER: usize = 64 << 10;
/// Connections that may wait to be accepted.
const BACKLOG: usize = 64;

/// The front end's side. Cloned freely; when all clones are gone nobody can dial any more.
#[derive(Debug, Clone)]
pub struct Dialer {
    accepted: mpsc::Sender<DuplexStream>,
}

/// The owner's side.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<DuplexStream>,
}

/// A pair that is connected.
#[must_use]
pub fn pair() -> (Dialer, Incoming) {
    let (accepted, connections) = mpsc::channel(BACKLOG);
    (Dialer { accepted }, Incoming { connections })
}

impl Dialer {
    /// Opens a connection; `None` when the owner is gone.
    pub async fn dial(&self) -> Option<DuplexStream> {
        let (near, far) = tokio::io::duplex(BUFFER);
        self.accepted.send(far).await.ok().map(|()| near)
    }
}

impl Incoming {
    /// The next connection; `None` when no dialer is left. Cancel-safe.
    pub async fn accept(&mut self) -> Option<DuplexStream> {
        self.connections.recv().await
    }
}
