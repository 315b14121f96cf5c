//! A naming service: each name is given once, and later names are higher.
//!
//!     naming HOSTS PATH NAME

use recipes::{again, arguments, connect, ensure, millis, sleep, Acls, Client, CreateMode, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = arguments();
    loop {
        let client = connect(&args[0]).await;
        // Ends when the session does. The name that it was about to get may be left unused.
        let _ = names(&client, &args[1], &args[2]).await;
    }
}

async fn names(client: &Client, path: &str, name: &str) -> Result<(), Error> {
    ensure(client, path).await?;
    for number in 0_u64.. {
        println!("{name} named {}", new_name(client, path, name, number).await?);
        sleep(millis(100)).await;
    }
    Ok(())
}

/// The number of a new sequential node. A prefix used once finds it again if the reply to its creation was lost.
async fn new_name(client: &Client, path: &str, name: &str, number: u64) -> Result<String, Error> {
    let prefix = format!("{:x}-{number}-", client.session_id().0);
    let node = format!("{path}/{prefix}");
    let options = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
    loop {
        match client.create(&node, name.as_bytes(), &options).await {
            Ok((_, sequence)) => return Ok(sequence.to_string()),
            Err(Error::ConnectionLoss) => {
                // The server we are at now may not have what the other one did: sync first.
                again(|| client.sync(path)).await?;
                let nodes = again(|| client.list_children(path)).await?;
                if let Some(sequence) = nodes.iter().find_map(|node| node.strip_prefix(&prefix)) {
                    return Ok(sequence.to_owned());
                }
            }
            Err(error) => return Err(error),
        }
    }
}
