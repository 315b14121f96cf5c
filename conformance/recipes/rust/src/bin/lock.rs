//! A distributed lock with a fencing token.
//!
//!     lock HOSTS PATH NAME STORAGE

use recipes::{arguments, connect, millis, sleep, token, Acls, Client, CreateMode, Error, Storage};
use zookeeper_client::{LockOptions, LockPrefix, StateWatcher};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = arguments();
    let mut storage = Storage::open(&args[3]).expect("the storage answers");
    loop {
        let client = connect(&args[0]).await;
        let mut states = client.state_watcher();
        states.state();
        // When the connection was lost, a new session: what lost replies may have left in the line goes with the old one.
        while work(&client, &mut states, &args[1], &args[2], &mut storage).await.is_ok() {
            sleep(millis(20)).await;
        }
    }
}

async fn work(
    client: &Client, states: &mut StateWatcher, path: &str, name: &str, storage: &mut Storage,
) -> Result<(), Error> {
    let ancestors = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let options = LockOptions::new(Acls::anyone_all()).with_ancestor_options(ancestors)?;
    // The node is deleted when `lock` is dropped.
    let lock = tokio::select! {
        biased;
        _ = states.changed() => return Err(Error::ConnectionLoss),
        lock = client.lock(LockPrefix::new_curator(path, "lock-")?, name.as_bytes(), options) => lock?,
    };
    let Some(token) = token(client, lock.lock_path()).await? else { return Ok(()) };
    println!("{name} locked {token}");
    for _ in 0..4 {
        if storage.write(token, name).is_err() {
            println!("{name} lost {token}");
            return Ok(());
        }
        sleep(millis(40)).await;
    }
    println!("{name} unlocked {token}");
    Ok(())
}
