//! What the programs here share: how they connect, print, try again, and write to a storage that is fenced.

use std::future::Future;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use tokio::time::sleep;
pub use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error};

pub const SESSION: Duration = Duration::from_secs(6);
pub const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());
pub const EPHEMERAL: CreateOptions<'static> = CreateMode::Ephemeral.with_acls(Acls::anyone_all());

/// The program's arguments after its name.
pub fn arguments() -> Vec<String> {
    std::env::args().skip(1).collect()
}

pub fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A client with a new session; tries until there is one. A client of this crate ends with its session.
pub async fn connect(hosts: &str) -> Client {
    loop {
        match Client::connector().with_session_timeout(SESSION).connect(hosts).await {
            Ok(client) => return client,
            Err(_) => sleep(millis(100)).await,
        }
    }
}

/// Tries again while the connection is lost: for what may be done twice.
pub async fn again<T, F: Future<Output = Result<T, Error>>>(mut operation: impl FnMut() -> F) -> Result<T, Error> {
    loop {
        match operation().await {
            Err(Error::ConnectionLoss) => sleep(millis(50)).await,
            result => return result,
        }
    }
}

/// Creates the node and those above it, empty, unless they are there.
pub async fn ensure(client: &Client, path: &str) -> Result<(), Error> {
    again(|| client.mkdir(path, &PERSISTENT)).await
}

/// Deletes the node, if it is there.
pub async fn remove(client: &Client, path: &str) -> Result<(), Error> {
    match again(|| client.delete(path, None)).await {
        Err(Error::NoNode) => Ok(()),
        result => result,
    }
}

/// The zxid that created this session's ephemeral node, as the leader sees it; `None` when it is gone or another session's.
pub async fn token(client: &Client, node: &str) -> Result<Option<i64>, Error> {
    again(|| client.sync(node)).await?;
    let stat = again(|| client.check_stat(node)).await?;
    Ok(stat.filter(|stat| stat.ephemeral_owner == client.session_id().0).map(|stat| stat.czxid))
}

/// The storage has seen a higher token: whoever writes has been replaced.
pub struct Stale;

/// What a lock protects. It remembers the highest token it was shown, and refuses a lower one.
pub struct Storage(BufReader<UnixStream>);

impl Storage {
    pub fn open(address: &str) -> io::Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(address)?)))
    }

    pub fn write(&mut self, token: i64, text: &str) -> Result<(), Stale> {
        let mut answer = String::new();
        let written = self.0.get_mut().write_all(format!("{token} {text}\n").as_bytes());
        match written.and_then(|()| self.0.read_line(&mut answer)) {
            Ok(_) if answer == "ok\n" => Ok(()),
            _ => Err(Stale),
        }
    }
}
