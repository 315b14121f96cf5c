//! Simulated time: a queue of what happens when, and clocks that members believe in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use zk_processor::Now;

/// One millisecond, in µs: the unit of simulated time.
pub const MS: i64 = 1000;

/// One second.
pub const SECOND: i64 = 1000 * MS;

#[derive(Debug)]
struct Entry<E> {
    at_us: i64,
    seq: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.seq) == (other.at_us, other.seq)
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.seq).cmp(&(other.at_us, other.seq))
    }
}

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    next_seq: u64,
    now_us: i64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), next_seq: 0, now_us: 0 }
    }
}

impl<E> Queue<E> {
    /// Simulated time, in µs since the start.
    #[must_use]
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    /// `event` happens in `delay_us` µs.
    pub fn push(&mut self, delay_us: i64, event: E) {
        self.push_at(self.now_us + delay_us, event);
    }

    /// `event` happens at this time, or at once if that has passed.
    pub fn push_at(&mut self, at_us: i64, event: E) {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.heap.push(Reverse(Entry { at_us: at_us.max(self.now_us), seq, event }));
    }

    /// The next event; time goes on to it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse(entry) = self.heap.pop()?;
        self.now_us = entry.at_us;
        Some(entry.event)
    }
}

/// The clocks of one process. Its monotonic clock begins somewhere, its wall clock jumps.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// What the monotonic clock shows at simulated time 0, in µs.
    pub mono_offset_us: i64,
    /// What the wall clock shows at simulated time 0, in ms since 1970.
    pub wall_offset_ms: i64,
}

impl Clocks {
    /// What they show.
    #[must_use]
    pub fn now(self, now_us: i64) -> Now {
        Now { mono_us: self.mono_offset_us + now_us, wall_ms: self.wall_offset_ms + now_us / 1000 }
    }
}
