//! What the core asks for: queued in its order, done when its lock is released.

use std::sync::Arc;

use zk_processor::Action;
use zk_zab::LinkId;

use crate::Exit;
use crate::context::Context;
use crate::quorum::{LinkOutbox, snapshot};

/// Takes the actions of one call of the core. [`Self::push`] is called under the core's lock, so it
/// only appends to queues; when this is dropped, afterwards, the store thread is woken once, and each
/// link that something was queued for is sent as much as its socket takes.
#[derive(Debug)]
pub struct Batch<'c> {
    context: &'c Arc<Context>,
    persists: bool,
    touched: Vec<Arc<LinkOutbox>>,
}

impl<'c> Batch<'c> {
    /// Nothing yet.
    #[must_use]
    pub fn new(context: &'c Arc<Context>) -> Self {
        Self { context, persists: false, touched: Vec::new() }
    }

    /// The next action.
    pub fn push(&mut self, action: Action) {
        match action {
            Action::Persist { token, write } => {
                self.context.queue.push(self.context, token, write);
                self.persists = true;
            }
            Action::Send { link, packet } => {
                if let Some(outbox) = self.outbox(link) {
                    outbox.push(&packet);
                }
            }
            Action::Notify { to, notification } => {
                self.context.quorum().notify(self.context, to, &notification);
            }
            Action::Connect { link, server, port } => {
                self.context.quorum().links.connect(self.context, link, server, port);
            }
            Action::Close { link } => self.context.quorum().links.close(link),
            Action::SendHistory { link, after, to } => {
                let context = self.context;
                if let Some(outbox) = self.outbox(link) {
                    outbox.push_expansion(snapshot::send_history(context, after, to));
                }
            }
            Action::SendSnapshot { link, to } => {
                let context = self.context;
                if let Some(outbox) = self.outbox(link) {
                    outbox.push_expansion(snapshot::send(context, link, to));
                }
            }
            Action::Propose { members } => self.context.propose(members),
            Action::Activate { members } => self.context.activate(members),
            Action::Halt { why } => self.context.end(Exit::Halted, why),
        }
    }

    /// The link's queue; `None` when the link is gone, which the core is about to hear.
    fn outbox(&mut self, link: LinkId) -> Option<&Arc<LinkOutbox>> {
        let at = match self.touched.iter().position(|outbox| outbox.id() == link) {
            Some(at) => at,
            None => {
                self.touched.push(self.context.quorum().links.get(link)?);
                self.touched.len() - 1
            }
        };
        self.touched.get(at)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.persists {
            self.context.queue.wake();
        }
        for outbox in &self.touched {
            outbox.flush();
        }
    }
}
