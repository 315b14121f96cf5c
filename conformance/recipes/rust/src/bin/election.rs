//! Master election: of all who stand, one is the master at a time, and another takes over when it is gone.
//!
//!     election HOSTS PATH NAME STORAGE

use recipes::{arguments, connect, millis, sleep, token, Acls, Client, CreateMode, Error, Storage};
use zookeeper_client::{LockOptions, LockPrefix, SessionState};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = arguments();
    let mut storage = Storage::open(&args[3]).expect("the storage answers");
    loop {
        let client = connect(&args[0]).await;
        // A new session each time: what lost replies may have left in the line goes with the old one.
        let _ = stand(&client, &args[1], &args[2], &mut storage).await;
        sleep(millis(50)).await;
    }
}

async fn stand(client: &Client, path: &str, name: &str, storage: &mut Storage) -> Result<(), Error> {
    let ancestors = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let options = LockOptions::new(Acls::anyone_all()).with_ancestor_options(ancestors)?;
    let mut states = client.state_watcher();
    states.state();
    // The node is deleted when `lock` is dropped.
    let lock = tokio::select! {
        lock = client.lock(LockPrefix::new_curator(path, "latch-")?, name.as_bytes(), options) => lock?,
        _ = states.changed() => return Err(Error::ConnectionLoss),
    };
    // The zxid that created our node is the term: every later master has a higher one, whatever happens to the path.
    let Some(token) = token(client, lock.lock_path()).await? else { return Ok(()) };
    println!("{name} master {token}");
    loop {
        // Without a connection nobody tells us that we have been replaced: stop at once, before the session can expire.
        tokio::select! {
            biased;
            state = states.changed() => if state != SessionState::SyncConnected { break },
            () = sleep(millis(50)) => if storage.write(token, name).is_err() { break },
        }
    }
    println!("{name} deposed {token}");
    Ok(())
}
