//! The observer master port: a follower listens on it as long as it serves.
//!
//! Nobody else may: several members of one machine can have the same port, of which one follows.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use zk_zab::LearnerPort;

use super::acceptor;
use super::address::{HostPort, joined};
use super::listen::bind_all;
use crate::context::Context;

/// How often to look whether this server follows.
const LOOK: Duration = Duration::from_millis(20);

/// Between two attempts to bind.
const RETRY: Duration = Duration::from_secs(1);

/// Serves the port until it is dropped.
pub(crate) async fn run(context: Arc<Context>, addresses: Vec<HostPort>) {
    let on_all_ips = context.config.ensemble.quorum_listen_on_all_ips;
    let mut warned = false;
    loop {
        while !context.node.follows() {
            sleep(LOOK).await;
        }
        let listeners = match bind_all(&addresses, on_all_ips).await {
            Ok(listeners) => listeners,
            Err(error) => {
                // Observers find another follower, or the leader.
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(
                        "cannot listen on the observer master port {}: {error}. No observer is fed by this server until that is possible. Is another follower running on this machine, or another program on the port?",
                        joined(&addresses)
                    );
                }
                sleep(RETRY).await;
                continue;
            }
        };
        warned = false;
        let mut tasks = JoinSet::new();
        for listener in listeners {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "listening on the observer master port");
            }
            let context = Arc::clone(&context);
            tasks.spawn(acceptor::listen(context, listener, LearnerPort::ObserverMaster));
        }
        while context.node.follows() {
            sleep(LOOK).await;
        }
        // The listeners are closed; the links are the core's to close.
        tasks.shutdown().await;
    }
}
