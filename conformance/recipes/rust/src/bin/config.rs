//! Configuration: whoever publishes replaces a node's data, and every subscriber gets the newest.
//!
//!     config publish|subscribe HOSTS PATH NAME

use recipes::{again, arguments, connect, ensure, millis, sleep, Client, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = arguments();
    let mut newest = 0;
    loop {
        let client = connect(&args[1]).await;
        // Ends when the session does.
        let _ = match args[0].as_str() {
            "publish" => publish(&client, &args[2], &args[3]).await,
            _ => subscribe(&client, &args[2], &args[3], &mut newest).await,
        };
    }
}

fn number(data: &[u8]) -> u64 {
    std::str::from_utf8(data).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn publish(client: &Client, path: &str, name: &str) -> Result<(), Error> {
    ensure(client, path).await?;
    loop {
        let (data, stat) = again(|| client.get_data(path)).await?;
        let next = number(&data) + 1;
        // Only on top of what was read: a publisher that was away does not undo what another wrote.
        match client.set_data(path, next.to_string().as_bytes(), Some(stat.version)).await {
            Ok(_) => println!("{name} published {next}"),
            // Another was first; or it may have been written or not: the next round reads.
            Err(Error::BadVersion | Error::ConnectionLoss) => continue,
            Err(error) => return Err(error),
        }
        sleep(millis(100)).await;
    }
}

async fn subscribe(client: &Client, path: &str, name: &str, newest: &mut i64) -> Result<(), Error> {
    loop {
        let (data, stat, changed) = match again(|| client.get_and_watch_data(path)).await {
            Err(Error::NoNode) => {
                sleep(millis(100)).await;
                continue;
            }
            result => result?,
        };
        // A session is never shown the past; a new session, at a server that lags, may be.
        if stat.mzxid < *newest {
            println!("{name} older {}", number(&data));
        } else if stat.mzxid > *newest && !data.is_empty() {
            *newest = stat.mzxid;
            println!("{name} saw {}", number(&data));
        }
        changed.changed().await;
    }
}
