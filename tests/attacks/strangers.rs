//! Strangers: bare QUIC clients with whatever key, hello and frames a drill wants, each from an address of its own
//! where the ground has them.

use crate::field::Field;
use masternode::network::endpoint;
use masternode::network::handshake::{self, CloseCode, Hello, PROTOCOL, PROTOCOL_VERSION, Refusal};
use masternode::network::tls;
use masternode::network::wire::Class;
use masternode::primitives::hash::ChainId;
use masternode::primitives::keys::SecretKey;
use quinn::{Connection, ConnectionError, Endpoint, SendStream};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::timeout;

/// How long a stranger waits for anything.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of connections, by how they ended.
#[derive(Debug, Default)]
pub struct Ends(Mutex<BTreeMap<String, u64>>);

impl Ends {
    pub fn add(&self, how: impl Into<String>) {
        *self.0.lock().unwrap().entry(how.into()).or_default() += 1;
    }

    pub fn count(&self, how: &str) -> u64 {
        self.0.lock().unwrap().get(how).copied().unwrap_or(0)
    }
}

impl std::fmt::Display for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = self.0.lock().unwrap();
        let parts: Vec<String> = ends.iter().map(|(how, count)| format!("{count} {how}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// How a connection ended, in a word or two.
fn ended(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            match CloseCode::from_number(close.error_code.into_inner()) {
                Some(code) => format!("{code:?}"),
                None => "closed".to_owned(),
            }
        }
        ConnectionError::ConnectionClosed(_) => "refused".to_owned(),
        ConnectionError::TimedOut => "timed out".to_owned(),
        ConnectionError::LocallyClosed => "left".to_owned(),
        other => other.to_string(),
    }
}

/// All of them.
pub struct Strangers {
    pub runtime: tokio::runtime::Runtime,
    chain: ChainId,
    endpoints: Vec<Endpoint>,
    next: AtomicUsize,
}

/// One of them, accepted.
pub struct Stranger {
    pub connection: Connection,
}

impl Strangers {
    /// So many addresses, or sockets where there is but one.
    pub fn at(field: &Field, count: usize) -> Self {
        field.ground.at(field.ground.strangers_place(), || {
            // They would have machines of their own: what they do must not take time from the nodes.
            rustix::process::nice(19).unwrap();
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let key = SecretKey::from_seed(&rand::random());
            let configs = tls::configure(&key, PROTOCOL).unwrap();
            let endpoints = runtime.block_on(async {
                (0..count)
                    .map(|n| endpoint::open(field.ground.stranger(n), &configs, &key).unwrap())
                    .collect()
            });
            Self { runtime, chain: field.chain(), endpoints, next: AtomicUsize::new(0) }
        })
    }

    /// The next address in turn.
    pub fn endpoint(&self) -> &Endpoint {
        let next = self.next.fetch_add(1, Relaxed);
        &self.endpoints[next % self.endpoints.len()]
    }

    /// A configuration to dial with, of a fresh key.
    pub fn fresh_key() -> quinn::ClientConfig {
        Self::config(&SecretKey::from_seed(&rand::random()))
    }

    pub fn config(key: &SecretKey) -> quinn::ClientConfig {
        endpoint::client_config(&tls::configure(key, PROTOCOL).unwrap())
    }

    pub fn hello(&self, listen: SocketAddr) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            chain: self.chain,
            instance: rand::random(),
            agent: "stranger".to_owned(),
            name: "stranger".to_owned(),
            listen,
            height: 0,
            wall_ms: 0,
            vote: None,
        }
    }

    /// Connects and says hello.
    pub async fn join(&self, to: SocketAddr, config: quinn::ClientConfig) -> Result<Stranger, String> {
        self.join_from(self.endpoint(), to, config).await
    }

    pub async fn join_from(
        &self,
        from: &Endpoint,
        to: SocketAddr,
        config: quinn::ClientConfig,
    ) -> Result<Stranger, String> {
        let connecting =
            from.connect_with(config, to, tls::SERVER_NAME).map_err(|error| error.to_string())?;
        let connected = timeout(PATIENCE, connecting).await.map_err(|_| "timed out".to_owned())?;
        let connection = connected.map_err(|error| ended(&error))?;
        let hello = self.hello(from.local_addr().unwrap());
        let greeted = timeout(PATIENCE, async {
            let (mut send, receive) = connection.open_bi().await.map_err(|error| Refusal::of(&error))?;
            handshake::send(&mut send, &hello).await?;
            handshake::receive(receive).await
        });
        match greeted.await {
            Ok(Ok(_)) => Ok(Stranger { connection }),
            Ok(Err(refusal)) => {
                Err(refusal.code.map_or(refusal.text.to_string(), |code| format!("{code:?}")))
            }
            Err(_) => Err("timed out".to_owned()),
        }
    }
}

impl Stranger {
    /// The stream of a class.
    pub async fn stream(&self, class: Class) -> Result<SendStream, String> {
        let mut stream = self.connection.open_uni().await.map_err(|error| ended(&error))?;
        stream.write_all(&[class.byte()]).await.map_err(|error| error.to_string())?;
        Ok(stream)
    }

    /// Reads whatever comes and forgets it, until the connection ends.
    pub fn listen(&self) {
        let connection = self.connection.clone();
        tokio::spawn(async move {
            while let Ok(mut stream) = connection.accept_uni().await {
                tokio::spawn(
                    async move { while let Ok(Some(_)) = stream.read_chunk(1 << 20, true).await {} },
                );
            }
        });
    }

    /// Waits until the node ends the connection; how, or that it did not.
    pub async fn end(&self, patience: Duration) -> String {
        match timeout(patience, self.connection.closed()).await {
            Ok(error) => ended(&error),
            Err(_) => "still connected".to_owned(),
        }
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<String> {
        self.connection.close_reason().map(|error| ended(&error))
    }
}
