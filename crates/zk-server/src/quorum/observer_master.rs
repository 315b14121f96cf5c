//! The observer master port: a follower listens on it as long as it serves.
//!
//! Nobody else may: several members of one machine can have the same port, of which one follows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use zk_proto::ServerId;
use zk_zab::LearnerPort;

use super::acceptor;
use super::address::joined;
use super::learner_link::at_port;
use super::listen::{Port, Sockets};
use crate::context::Context;

/// How often to look whether this server follows.
const LOOK: Duration = Duration::from_millis(20);

/// Between two attempts to bind.
const RETRY: Duration = Duration::from_secs(1);

/// Serves the port until it is dropped, at the hosts that this member's line names.
pub(crate) async fn run(context: Arc<Context>, id: ServerId, port: u16) {
    let serving = Arc::clone(&context);
    let serve =
        move |socket| acceptor::listen(Arc::clone(&serving), socket, LearnerPort::ObserverMaster);
    let hosts = || {
        let in_force = context.membership.current();
        let own = in_force.member(id).map(|own| Port::Quorum.addresses(own));
        at_port(&own.unwrap_or_default(), port)
    };
    let on_all_ips = context.config.ensemble.quorum_listen_on_all_ips;
    let mut warned = false;
    loop {
        while !context.node.follows() {
            sleep(LOOK).await;
        }
        let addresses = hosts();
        let mut sockets = Sockets::default();
        if let Err(error) = sockets.become_those(&addresses, on_all_ips, &serve).await
            && !sockets.settle_for_less(&addresses)
        {
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
        warned = false;
        tracing::info!(address = joined(&addresses), "listening on the observer master port");
        while context.node.follows() && hosts() == addresses {
            sleep(LOOK).await;
        }
        // The listeners are closed; the links are the core's to close.
        sockets.close().await;
    }
}
