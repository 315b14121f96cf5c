//! Membership of a group of workers: each knows who else is there.
//!
//!     members HOSTS PATH NAME

use recipes::{again, arguments, connect, ensure, millis, sleep, Client, Error, EPHEMERAL};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = arguments();
    loop {
        let client = connect(&args[0]).await;
        // Ends when the session does; with the next one we join again.
        let _ = belong(&client, &args[1], &args[2]).await;
    }
}

async fn belong(client: &Client, path: &str, name: &str) -> Result<(), Error> {
    ensure(client, path).await?;
    let node = format!("{path}/{name}");
    loop {
        match again(|| client.create(&node, b"", &EPHEMERAL)).await {
            Ok(_) => break,
            Err(Error::NodeExists) => {
                // Either an earlier try of ours, or left by a former session of this name, which has yet to end.
                let stat = again(|| client.check_stat(&node)).await?;
                if stat.is_some_and(|stat| stat.ephemeral_owner == client.session_id().0) {
                    break;
                }
                sleep(millis(200)).await;
            }
            Err(error) => return Err(error),
        }
    }
    let mut before = Vec::new();
    loop {
        let (mut workers, changed) = again(|| client.list_and_watch_children(path)).await?;
        workers.sort();
        if workers != before {
            println!("{name} sees {}", workers.join(","));
            before = workers;
        }
        changed.changed().await;
    }
}
