//! A queue of work: items are handed out in order, and each one's result is recorded once.
//!
//!     workqueue put|take HOSTS PATH NAME
//!
//! An item is claimed by an ephemeral node, so that the claim ends with whoever made it. The item, the claim and the result are
//! changed in one transaction.

use recipes::{again, arguments, connect, ensure, millis, remove, sleep, Client, Error, EPHEMERAL, PERSISTENT};
use tokio::time::timeout;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args = arguments();
    let mut next = 1;
    loop {
        let client = connect(&args[1]).await;
        let queue = Queue { client, path: &args[2], name: &args[3] };
        // Ends when the session does.
        let _ = match args[0].as_str() {
            "put" => queue.put_all(&mut next).await,
            _ => queue.take_all().await,
        };
    }
}

struct Queue<'a> {
    client: Client,
    path: &'a str,
    name: &'a str,
}

impl Queue<'_> {
    fn node(&self, folder: &str, item: &str) -> String {
        format!("{}/{folder}/{item}", self.path)
    }

    async fn folders(&self) -> Result<(), Error> {
        for folder in ["items", "claims", "done"] {
            ensure(&self.client, &format!("{}/{folder}", self.path)).await?;
        }
        Ok(())
    }

    async fn exists(&self, node: &str) -> Result<bool, Error> {
        Ok(again(|| self.client.check_stat(node)).await?.is_some())
    }

    async fn put_all(&self, next: &mut u64) -> Result<(), Error> {
        self.folders().await?;
        loop {
            let item = format!("{next:010}-{}", self.name);
            // With a former session it may have been put already.
            if !self.was_put(&item).await? {
                self.put(&item).await?;
            }
            println!("{} put {item}", self.name);
            *next += 1;
            sleep(millis(100)).await;
        }
    }

    async fn put(&self, item: &str) -> Result<(), Error> {
        loop {
            match self.client.create(&self.node("items", item), b"work", &PERSISTENT).await {
                Ok(_) => return Ok(()),
                Err(Error::ConnectionLoss) if self.was_put(item).await? => return Ok(()),
                Err(Error::ConnectionLoss) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// It may even have been worked on by now. First the items, then those done: what moves is not missed.
    async fn was_put(&self, item: &str) -> Result<bool, Error> {
        again(|| self.client.sync(self.path)).await?;
        Ok(self.exists(&self.node("items", item)).await? || self.exists(&self.node("done", item)).await?)
    }

    async fn take_all(&self) -> Result<(), Error> {
        self.folders().await?;
        let folder = format!("{}/items", self.path);
        loop {
            let (mut items, changed) = again(|| self.client.list_and_watch_children(&folder)).await?;
            items.sort();
            for item in items {
                if self.claim(&item).await? {
                    println!("{} took {item}", self.name);
                    sleep(millis(50)).await;
                    let done = self.finish(&item).await;
                    if let Err(error) = &done {
                        eprintln!("{item} is given up: {error}");
                    }
                    println!("{} {} {item}", self.name, if done.is_ok() { "done" } else { "lost" });
                    done?;
                }
            }
            // Look again now and then: what another had claimed may have been given up.
            let _ = timeout(millis(500), changed.changed()).await;
        }
    }

    async fn claim(&self, item: &str) -> Result<bool, Error> {
        let node = self.node("claims", item);
        match again(|| self.client.create(&node, self.name.as_bytes(), &EPHEMERAL)).await {
            Ok(_) => {}
            Err(Error::NodeExists) => {
                // Perhaps by a try of ours whose reply was lost.
                let stat = again(|| self.client.check_stat(&node)).await?;
                if stat.is_none_or(|stat| stat.ephemeral_owner != self.client.session_id().0) {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
        again(|| self.client.sync(self.path)).await?;
        if self.exists(&self.node("items", item)).await? {
            return Ok(true);
        }
        remove(&self.client, &node).await?;
        Ok(false)
    }

    /// Ends with an error when the session, and the claim with it, is lost.
    async fn finish(&self, item: &str) -> Result<(), Error> {
        loop {
            let mut transaction = self.client.new_multi_writer();
            transaction.add_delete(&self.node("claims", item), None)?;
            transaction.add_delete(&self.node("items", item), None)?;
            transaction.add_create(&self.node("done", item), self.name.as_bytes(), &PERSISTENT)?;
            let result = transaction.commit().await.map_err(Error::from);
            match result {
                Ok(_) => return Ok(()),
                // Done or not: if it was, it cannot be done again.
                Err(Error::ConnectionLoss) => sleep(millis(50)).await,
                Err(Error::NoNode) => {
                    again(|| self.client.sync(self.path)).await?;
                    let (by, _) = again(|| self.client.get_data(&self.node("done", item))).await?;
                    return if by == self.name.as_bytes() { Ok(()) } else { Err(Error::NoNode) };
                }
                Err(error) => return Err(error),
            }
        }
    }
}
