use std::collections::VecDeque;

use zk_proto::Zxid;

use crate::{Action, Input, Token, Write};

/// A member of an ensemble. For now the one member of a standalone one: it leads from its first step
/// to its last.
#[derive(Debug)]
pub struct Peer {
    last_proposed: Zxid,
    next_token: Token,
    /// Proposals that are not on disk yet, by the token of their write.
    outstanding: VecDeque<(Token, Zxid)>,
    actions: VecDeque<Action>,
}

impl Peer {
    /// A peer with everything up to `last_logged` in its log and committed: with a quorum of one,
    /// what is logged is committed.
    #[must_use]
    pub fn recover_standalone(last_logged: Zxid) -> Self {
        Self {
            last_proposed: last_logged,
            next_token: Token(1),
            outstanding: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes one input; what follows from it comes out of [`Self::poll_action`].
    ///
    /// # Panics
    /// A proposal that is not behind the last one: the order of everything would be lost.
    pub fn step(&mut self, input: Input) {
        match input {
            Input::Propose { zxid, txn } => {
                assert!(zxid > self.last_proposed, "{zxid} proposed after {}", self.last_proposed);
                self.last_proposed = zxid;
                let token = self.next_token;
                self.next_token = Token(token.0 + 1);
                self.outstanding.push_back((token, zxid));
                self.actions
                    .push_back(Action::Persist { token, write: Write::Append { zxid, txn } });
            }
            Input::Persisted { token } => {
                let mut committed = None;
                while let Some(&(own, zxid)) = self.outstanding.front()
                    && own <= token
                {
                    self.outstanding.pop_front();
                    committed = Some(zxid);
                }
                if let Some(zxid) = committed {
                    self.actions.push_back(Action::Deliver { zxid });
                }
            }
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The last transaction that was proposed.
    #[must_use]
    pub fn last_proposed(&self) -> Zxid {
        self.last_proposed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn propose(peer: &mut Peer, zxid: i64) -> Token {
        peer.step(Input::Propose { zxid: Zxid(zxid), txn: Bytes::new() });
        match peer.poll_action() {
            Some(Action::Persist { token, write: Write::Append { zxid: logged, .. } }) => {
                assert_eq!(logged, Zxid(zxid));
                token
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_delivered_before_it_is_on_disk() {
        let mut peer = Peer::recover_standalone(Zxid(4));
        let first = propose(&mut peer, 5);
        let second = propose(&mut peer, 6);
        let third = propose(&mut peer, 7);
        assert_eq!(peer.poll_action(), None);
        peer.step(Input::Persisted { token: second });
        assert_eq!(peer.poll_action(), Some(Action::Deliver { zxid: Zxid(6) }));
        peer.step(Input::Persisted { token: first });
        assert_eq!(peer.poll_action(), None, "delivered twice");
        peer.step(Input::Persisted { token: third });
        assert_eq!(peer.poll_action(), Some(Action::Deliver { zxid: Zxid(7) }));
    }

    #[test]
    #[should_panic(expected = "proposed after")]
    fn the_order_never_goes_back() {
        let mut peer = Peer::recover_standalone(Zxid(4));
        propose(&mut peer, 4);
    }
}
