//! Signals to end with: who listens gets them, and if nobody does the process ends as it would without us.

use std::io;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;

/// Interrupt, terminate, hang-up.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    sender: broadcast::Sender<i32>,
}

impl Signals {
    pub(crate) fn install(runtime: &Runtime) -> io::Result<Self> {
        // Each is acted on at once, and hands do not send many.
        let (sender, _) = broadcast::channel(16);
        let _inside = runtime.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut stream = signal(kind)?;
            let sender = sender.clone();
            runtime.spawn(async move {
                while stream.recv().await.is_some() {
                    if sender.send(kind.as_raw_value()).is_err() {
                        #[allow(
                            clippy::disallowed_methods,
                            reason = "what the system does at a signal that nobody takes"
                        )]
                        std::process::exit(128 + kind.as_raw_value());
                    }
                }
            });
        }
        Ok(Self { sender })
    }

    /// The signals from now on.
    pub(crate) fn listen(&self) -> Listener {
        Listener { receiver: self.sender.subscribe() }
    }
}

/// Gets the signals for as long as it lives.
#[derive(Debug)]
pub(crate) struct Listener {
    receiver: broadcast::Receiver<i32>,
}

impl Listener {
    /// The next signal's number.
    pub(crate) async fn next(&mut self) -> i32 {
        loop {
            match self.receiver.recv().await {
                Ok(number) => return number,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The handlers live as long as the process.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
