//! A distributed lock with a fencing token.
//!
//!     lock HOSTS PATH NAME STORAGE

use recipes::{arguments, connect, millis, sleep, token, Acls, Client, CreateMode, Error, Storage};
use zookeeper_client::{LockOptions, LockPrefix};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = arguments();
    let mut storage = Storage::open(&args[3]).expect("the storage answers");
    loop {
        let client = connect(&args[0]).await;
        while !client.state().is_terminated() {
            let _ = work(&client, &args[1], &args[2], &mut storage).await;
            sleep(millis(20)).await;
        }
    }
}

async fn work(client: &Client, path: &str, name: &str, storage: &mut Storage) -> Result<(), Error> {
    let ancestors = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let options = LockOptions::new(Acls::anyone_all()).with_ancestor_options(ancestors)?;
    // The node is deleted when `lock` is dropped.
    let lock = client.lock(LockPrefix::new_curator(path, "lock-")?, name.as_bytes(), options).await?;
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
