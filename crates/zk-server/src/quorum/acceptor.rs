//! The quorum port, which always listens, and the observer master port, which a follower listens on: a
//! learner that says who it is becomes a link.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use zk_proto::quorum::QuorumPacket;
use zk_zab::LearnerPort;

use super::learner_link::{self, LINKS_MAX, Origin};
use super::link_outbox::LinkOutbox;
use super::packets::{self, Behind, FIRST_PACKET_DATA_MAX};
use super::unknown::{UNKNOWN_MAX, Unknown};
use crate::context::Context;
use crate::socket::set_options;

/// How long to wait after the system could not give a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves a port until it is dropped.
pub(crate) async fn listen(context: Arc<Context>, listener: TcpListener, port: LearnerPort) {
    let mut unknown = Unknown::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no learner could be accepted: raise the limit of open files?");
                sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if context.quorum().links.len() >= LINKS_MAX {
            tracing::warn!(%peer, max = LINKS_MAX, "quorum connection refused: there are too many");
            continue;
        }
        let greeting = {
            let context = Arc::clone(&context);
            async move {
                match greet(&context, stream).await {
                    Ok((stream, packets, unread)) => begin(&context, stream, port, packets, unread),
                    Err(why) => tracing::warn!(%peer, %why, "quorum connection refused"),
                }
            }
        };
        if unknown.push(context.quorum().tasks.spawn(greeting)) {
            tracing::warn!(
                max = UNKNOWN_MAX,
                "too many connections on the quorum port say nothing: the oldest was closed"
            );
        }
    }
}

/// Waits for the first packet, which is short.
async fn greet(
    context: &Context,
    mut stream: TcpStream,
) -> Result<(TcpStream, VecDeque<QuorumPacket>, BytesMut), String> {
    let config = &context.quorum().links.config;
    let (mut unread, mut packets) = (BytesMut::new(), VecDeque::new());
    let greeting = async {
        set_options(&stream, config.keep_alive).map_err(|error| error.to_string())?;
        loop {
            match packets::take(&mut unread, FIRST_PACKET_DATA_MAX, &mut packets) {
                Ok(Behind::Packets) if packets.is_empty() => {}
                Ok(Behind::Packets) => return Ok(()),
                Ok(Behind::Snapshot(_)) => return Err("it began with a snapshot".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
            match stream.read_buf(&mut unread).await {
                Ok(0) => return Err("it was closed before it said who it is".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    match timeout(config.handshake_timeout, greeting).await {
        Ok(greeted) => greeted.map(|()| (stream, packets, unread)),
        Err(_) => Err("it did not say in time who it is".to_owned()),
    }
}

fn begin(
    context: &Arc<Context>,
    stream: TcpStream,
    port: LearnerPort,
    packets: VecDeque<QuorumPacket>,
    unread: BytesMut,
) {
    let (reader, writer) = stream.into_split();
    let outbox = LinkOutbox::new(context.node.accept_link(), writer);
    let quorum = context.quorum();
    quorum.links.insert(&outbox);
    let origin = Origin::Accepted { port, packets, unread };
    quorum.tasks.spawn(learner_link::run(Arc::clone(context), outbox, reader, origin));
}
