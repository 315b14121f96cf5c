//! A double barrier: nobody starts before all have come, nobody goes on before all have finished. Round after round.
//!
//!     barrier HOSTS PATH NAME SIZE ROUND

use recipes::{again, arguments, connect, ensure, millis, remove, sleep, Client, Error, EPHEMERAL};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = arguments();
    let (name, size) = (&args[2], args[3].parse().expect("SIZE is a number"));
    let first: u64 = args[4].parse().expect("ROUND is a number");
    let mut client = connect(&args[0]).await;
    for round in first.. {
        // A node of its own for each round: who is slow to leave one never meets who is quick to enter the next.
        let barrier = Barrier { path: format!("{}/{round:010}", args[1]), name, size };
        println!("{name} arrives {round}");
        while barrier.enter(&client).await.is_err() {
            client = connect(&args[0]).await;
        }
        println!("{name} enters {round}");
        sleep(millis(100)).await;
        println!("{name} leaves {round}");
        match barrier.leave(&client).await {
            Ok(()) => println!("{name} left {round}"),
            Err(_) => {
                // Our session expired: to the others we are gone.
                println!("{name} expelled {round}");
                client = connect(&args[0]).await;
            }
        }
    }
}

struct Barrier<'a> {
    path: String,
    name: &'a str,
    size: usize,
}

impl Barrier<'_> {
    async fn enter(&self, client: &Client) -> Result<(), Error> {
        let (inside, ready) = (format!("{}/in", self.path), format!("{}/ready", self.path));
        let node = format!("{inside}/{}", self.name);
        ensure(client, &inside).await?;
        loop {
            match again(|| client.create(&node, b"", &EPHEMERAL)).await {
                Ok(_) | Err(Error::NodeExists) => {}
                Err(error) => return Err(error),
            }
            let (open, opened) = again(|| client.check_and_watch_stat(&ready)).await?;
            if open.is_some() {
                return Ok(());
            }
            let stat = again(|| client.check_stat(&node)).await?;
            if stat.is_none_or(|stat| stat.ephemeral_owner != client.session_id().0) {
                // Left by our former session, which has yet to end.
                sleep(millis(200)).await;
                continue;
            }
            if again(|| client.list_children(&inside)).await?.len() >= self.size {
                return ensure(client, &ready).await;
            }
            opened.changed().await;
        }
    }

    async fn leave(&self, client: &Client) -> Result<(), Error> {
        let inside = format!("{}/in", self.path);
        remove(client, &format!("{inside}/{}", self.name)).await?;
        loop {
            let (left, changed) = again(|| client.list_and_watch_children(&inside)).await?;
            if left.is_empty() {
                return Ok(());
            }
            changed.changed().await;
        }
    }
}
