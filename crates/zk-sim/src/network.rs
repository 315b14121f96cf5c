//! Connections that delay, stall and break, and never reorder or lose what they carry: TCP.

use std::collections::VecDeque;

use bytes::Bytes;
use zk_proto::quorum::{PacketType, QuorumPacket};
use zk_proto::{Epoch, Zxid};
use zk_zab::LinkId;

/// One direction of a connection.
#[derive(Debug)]
pub struct Pipe<T> {
    items: VecDeque<(i64, T)>,
    last_us: i64,
    /// Whether an event is under way that will look at it.
    pub scheduled: bool,
}

impl<T> Default for Pipe<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), last_us: 0, scheduled: false }
    }
}

impl<T> Pipe<T> {
    /// Puts `item` behind the others, to arrive at `at_us` or later. When it does.
    pub fn push(&mut self, at_us: i64, item: T) -> i64 {
        self.last_us = self.last_us.max(at_us);
        self.items.push_back((self.last_us, item));
        self.last_us
    }

    /// The next item that has arrived.
    pub fn pop(&mut self, now_us: i64) -> Option<T> {
        if self.items.front().is_some_and(|(at_us, _)| *at_us <= now_us) {
            self.items.pop_front().map(|(_, item)| item)
        } else {
            None
        }
    }

    /// When the next item arrives.
    #[must_use]
    pub fn next_us(&self) -> Option<i64> {
        self.items.front().map(|(at_us, _)| *at_us)
    }

    /// Everything under way is lost.
    pub fn clear(&mut self) {
        self.items.clear();
    }

    /// What is under way.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(_, item)| item)
    }

    /// The last so many of what is under way are lost.
    pub fn drop_last(&mut self, count: usize) {
        self.items.truncate(self.items.len().saturating_sub(count));
    }

    /// How much is under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// What travels on a link between members.
#[derive(Debug, Clone)]
pub enum Item {
    /// A packet.
    Packet(QuorumPacket),
    /// `SNAP` with this zxid, and the stream behind it.
    Snapshot(Zxid, Bytes),
    /// The end.
    Down,
}

/// One end of a link.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Which member.
    pub member: usize,
    /// Which life of it.
    pub life: u32,
    /// Its own name for the link; `None` until it accepted.
    pub id: Option<LinkId>,
    /// Whether it still wants to hear of it.
    pub open: bool,
}

/// A link between two members: the dialer's end is number 0.
#[derive(Debug)]
pub struct Link {
    /// Both ends.
    pub ends: [End; 2],
    /// `pipes[i]` is what goes to `ends[i]`.
    pub pipes: [Pipe<Item>; 2],
    /// The epoch of the last `LEADERINFO` on it.
    pub epoch: Epoch,
    /// How the learner is being synchronised, and how many transactions that took.
    pub sync: Option<(PacketType, u32)>,
    /// Whether the leader has sent `UPTODATE`.
    pub up_to_date: bool,
    /// Whether the learner has acknowledged `NEWLEADER`.
    pub acked: bool,
    /// Nothing more is sent.
    pub broken: bool,
    /// An observer dialled a follower.
    pub to_observer_master: bool,
}

/// What goes to or comes from a client.
#[derive(Debug, Clone)]
pub enum Frame {
    /// A frame, without its length.
    Bytes(Bytes),
    /// The end.
    Closed,
}

/// Who can reach whom, and how fast.
#[derive(Debug)]
pub struct Network {
    /// `cut[a][b]`: nothing comes through from member `a` to `b`.
    cut: Vec<Vec<bool>>,
    /// `client_cut[c][m]`: client `c` and member `m` are apart.
    client_cut: Vec<Vec<bool>>,
    /// The usual latency, in µs.
    pub base_us: i64,
    /// What is added to it, at most, in µs.
    pub jitter_us: i64,
    /// How often, in a thousand, something takes much longer.
    pub spike_permille: u64,
    /// How much longer, at most, in µs.
    pub spike_us: i64,
    /// Everything takes so many times as long.
    pub factor: i64,
    /// How many election messages in a thousand are lost.
    pub loss_permille: u64,
}

impl Network {
    /// Everybody reaches everybody.
    #[must_use]
    pub fn new(members: usize, clients: usize) -> Self {
        Self {
            cut: vec![vec![false; members]; members],
            client_cut: vec![vec![false; members]; clients],
            base_us: 300,
            jitter_us: 300,
            spike_permille: 0,
            spike_us: 0,
            factor: 1,
            loss_permille: 0,
        }
    }

    /// Whether nothing comes through from `a` to `b`.
    #[must_use]
    pub fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut[a][b]
    }

    /// Whether client and member are apart.
    #[must_use]
    pub fn is_client_cut(&self, client: usize, member: usize) -> bool {
        self.client_cut[client][member]
    }

    /// Cuts or mends the way from `a` to `b`.
    pub fn set_cut(&mut self, a: usize, b: usize, cut: bool) {
        if a != b {
            self.cut[a][b] = cut;
        }
    }

    /// Cuts or mends the way between a client and a member.
    pub fn set_client_cut(&mut self, client: usize, member: usize, cut: bool) {
        self.client_cut[client][member] = cut;
    }

    /// Whether any way is cut.
    #[must_use]
    pub fn any_cut(&self) -> bool {
        self.cut.iter().flatten().any(|cut| *cut)
    }

    /// Whether messages take longer than they do by nature, or get lost.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.factor > 1 || self.loss_permille > 0
    }

    /// Mends everything.
    pub fn mend(&mut self) {
        self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.client_cut.iter_mut().flatten().for_each(|cut| *cut = false);
        self.factor = 1;
        self.spike_permille = 0;
        self.loss_permille = 0;
    }
}
