use std::sync::Arc;

use crate::Failure;
use crate::histogram::Histogram;
use crate::requests::{Expect, Mix, Requests};

/// What a connection's replies add up to.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// Whether replies count now.
    pub(crate) measuring: bool,
    pub(crate) latency: Histogram,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { measuring: false, latency: Histogram::new() }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at_ns: u64,
    index: u32,
    expect: Expect,
}

/// Which znodes a connection creates: numbers `next`, `next + step`, ... in directories of `fanout`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Creates {
    pub(crate) next: u32,
    pub(crate) step: u32,
    /// Directory of a number: `dir + number / fanout`.
    pub(crate) dir: u32,
    pub(crate) fanout: u32,
}

/// One connection's requests and replies, without the socket.
#[derive(Debug)]
pub(crate) struct Pipeline {
    requests: Arc<Requests>,
    creates: Creates,
    /// Requests to send in all.
    limit: u64,
    window: u64,
    ring: Box<[Sent]>,
    sent: u64,
    answered: u64,
    random: u64,
    last_zxid: i64,
    out: Vec<u8>,
    input: Box<[u8]>,
    filled: usize,
}

const HEADER: usize = 16;
const STAT: usize = 68;

fn int(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Positive and consecutive; starts again long before the sign bit.
fn xid(number: u64) -> i32 {
    i32::try_from(number % 0x7fff_0000).expect("in range") + 1
}

impl Pipeline {
    pub(crate) fn new(
        requests: Arc<Requests>,
        window: u32,
        limit: u64,
        seed: u64,
        creates: Creates,
    ) -> Self {
        let sent = Sent { at_ns: 0, index: 0, expect: Expect::Stat };
        let input = (requests.max_reply() * 2).max(256 * 1024);
        Self {
            requests,
            creates,
            limit,
            window: u64::from(window),
            ring: vec![sent; (window as usize).next_power_of_two()].into(),
            sent: 0,
            answered: 0,
            random: (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            last_zxid: 0,
            out: Vec::with_capacity(64 * 1024),
            input: vec![0; input].into(),
            filled: 0,
        }
    }

    /// Requests that wait for their reply.
    pub(crate) fn in_flight(&self) -> u64 {
        self.sent - self.answered
    }

    /// Fills the window; the bytes to write follow from [`Pipeline::take_output`].
    pub(crate) fn produce(&mut self, now_ns: u64) {
        self.out.clear();
        let mask = self.ring.len() - 1;
        let end = self.limit.min(self.answered + self.window);
        match self.requests.mix() {
            Mix::ReadWrite { reads } => {
                while self.sent < end {
                    // xorshift64*
                    self.random ^= self.random >> 12;
                    self.random ^= self.random << 25;
                    self.random ^= self.random >> 27;
                    let random = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
                    let (index, expect) =
                        self.requests.push(reads, xid(self.sent), random, &mut self.out);
                    self.ring[self.sent as usize & mask] = Sent { at_ns: now_ns, index, expect };
                    self.sent += 1;
                }
            }
            Mix::Create => {
                while self.sent < end {
                    let index = self.creates.next;
                    self.creates.next += self.creates.step;
                    let dir = self.creates.dir + index / self.creates.fanout;
                    self.requests.push_create(dir, index, xid(self.sent), &mut self.out);
                    self.ring[self.sent as usize & mask] =
                        Sent { at_ns: now_ns, index, expect: Expect::Path };
                    self.sent += 1;
                }
            }
        }
    }

    /// What [`Pipeline::produce`] made.
    pub(crate) fn output(&self) -> &[u8] {
        &self.out
    }

    /// Where to read replies to.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.input[self.filled..]
    }

    /// `count` bytes were read at `now_ns`: checks every whole reply.
    pub(crate) fn received(
        &mut self,
        count: usize,
        now_ns: u64,
        recorder: &mut Recorder,
    ) -> Result<(), Failure> {
        self.filled += count;
        let mut at = 0;
        while self.filled - at >= 4 {
            let length = int(&self.input, at);
            let Some(length) = usize::try_from(length)
                .ok()
                .filter(|l| (HEADER..=self.requests.max_reply()).contains(l))
            else {
                return Err(Failure::new(format!(
                    "a reply of {length} bytes: the reply stream is broken"
                )));
            };
            if self.filled - at - 4 < length {
                break;
            }
            let reply = &self.input[at + 4..at + 4 + length];
            at += 4 + length;
            let mask = self.ring.len() - 1;
            let sent = self.ring[self.answered as usize & mask];
            if self.answered == self.sent {
                return Err(Failure::new("a reply that nothing was asked for"));
            }
            check(&self.requests, reply, xid(self.answered), sent, &mut self.last_zxid)?;
            self.answered += 1;
            if recorder.measuring {
                recorder.latency.record(now_ns - sent.at_ns);
            }
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

#[inline]
fn check(
    requests: &Requests,
    reply: &[u8],
    xid: i32,
    sent: Sent,
    last_zxid: &mut i64,
) -> Result<(), Failure> {
    let (got_xid, zxid, err) = (int(reply, 0), long(reply, 4), int(reply, 12));
    if got_xid != xid {
        return Err(Failure::new(format!("the reply to xid {xid} has xid {got_xid}")));
    }
    if err != 0 {
        return Err(Failure::new(format!(
            "operation on znode {:08x}: {}",
            sent.index,
            zk_proto::ErrorCode(err)
        )));
    }
    if zxid < *last_zxid {
        return Err(Failure::new(format!(
            "the zxid went back from {:#x} to {zxid:#x}",
            *last_zxid
        )));
    }
    *last_zxid = zxid;
    let value_size = requests.value_size();
    let good = match sent.expect {
        Expect::Data => {
            reply.len() == HEADER + 4 + value_size + STAT
                && int(reply, HEADER) as usize == value_size
                && is_hex(&reply[HEADER + 4..HEADER + 12], sent.index)
        }
        // The stat's data length, then its number of children and pzxid.
        Expect::Stat => {
            reply.len() == HEADER + STAT && int(reply, HEADER + STAT - 16) as usize == value_size
        }
        Expect::Path => {
            let path = requests.create_path_len();
            reply.len() == HEADER + 4 + path
                && int(reply, HEADER) as usize == path
                && is_hex(&reply[reply.len() - 8..], sent.index)
        }
    };
    if good {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "the reply about znode {:08x} is not about it ({:?})",
            sent.index, sent.expect
        )))
    }
}

#[inline]
fn is_hex(digits: &[u8], value: u32) -> bool {
    let mut expected = [0; 8];
    crate::requests::hex(value, &mut expected);
    digits == expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests;

    const CREATES: Creates = Creates { next: 5, step: 2, dir: 0, fanout: 1000 };

    fn reply(xid: i32, zxid: i64, err: i32, body: &[u8]) -> Vec<u8> {
        let mut out = ((HEADER + body.len()) as i32).to_be_bytes().to_vec();
        out.extend_from_slice(&xid.to_be_bytes());
        out.extend_from_slice(&zxid.to_be_bytes());
        out.extend_from_slice(&err.to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    fn created(index: u32) -> Vec<u8> {
        let path = format!("/c/00000000/{index:08x}");
        let mut body = (path.len() as i32).to_be_bytes().to_vec();
        body.extend_from_slice(path.as_bytes());
        body
    }

    fn pipeline(mix: Mix, window: u32) -> Pipeline {
        Pipeline::new(Arc::new(Requests::new(mix, 10, 20, "/c")), window, u64::MAX, 0, CREATES)
    }

    fn feed(pipeline: &mut Pipeline, bytes: &[u8], recorder: &mut Recorder) -> Result<(), Failure> {
        pipeline.space()[..bytes.len()].copy_from_slice(bytes);
        pipeline.received(bytes.len(), 1000, recorder)
    }

    #[test]
    fn replies_may_arrive_in_pieces() {
        let mut p = pipeline(Mix::Create, 3);
        let mut recorder = Recorder::new();
        recorder.measuring = true;
        p.produce(400);
        assert_eq!(p.in_flight(), 3);
        let stream: Vec<u8> = [reply(1, 7, 0, &created(5)), reply(2, 8, 0, &created(7))].concat();
        for byte in &stream {
            feed(&mut p, &[*byte], &mut recorder).unwrap();
        }
        assert_eq!((p.in_flight(), recorder.latency.count()), (1, 2));
        assert!(recorder.latency.max() == 600);
        p.produce(500);
        assert_eq!(p.in_flight(), 3);
    }

    #[test]
    fn a_wrong_reply_is_an_error() {
        let stat = [0; STAT];
        let cases = [
            (reply(2, 7, 0, &created(5)), "has xid 2"),
            (reply(1, 7, -101, &[]), "NONODE"),
            (reply(1, 7, 0, &created(6)), "not about it"),
            (reply(1, 7, 0, &stat), "not about it"),
            (vec![0, 0, 0, 3, 0, 0, 0], "3 bytes"),
            (vec![0x7f, 0, 0, 3], "broken"),
        ];
        for (bytes, text) in cases {
            let mut p = pipeline(Mix::Create, 1);
            p.produce(0);
            let Failure(got) = feed(&mut p, &bytes, &mut Recorder::new()).unwrap_err();
            assert!(got.contains(text), "{got}");
        }
        let mut p = pipeline(Mix::Create, 2);
        p.produce(0);
        let back: Vec<u8> = [reply(1, 7, 0, &created(5)), reply(2, 6, 0, &created(7))].concat();
        assert!(feed(&mut p, &back, &mut Recorder::new()).unwrap_err().0.contains("went back"));
    }

    #[test]
    fn data_must_be_that_of_the_znode() {
        let mut p = pipeline(Mix::reads(100), 1);
        p.produce(0);
        let index = p.ring[0].index;
        let body = |index: u32| {
            let mut body = 20i32.to_be_bytes().to_vec();
            body.extend_from_slice(&requests::value(index, 20));
            body.extend_from_slice(&[0; STAT]);
            body
        };
        assert!(feed(&mut p, &reply(1, 1, 0, &body(index + 1)), &mut Recorder::new()).is_err());
        let mut p = pipeline(Mix::reads(100), 1);
        p.produce(0);
        feed(&mut p, &reply(1, 1, 0, &body(index)), &mut Recorder::new()).unwrap();
        assert!(
            feed(&mut p, &reply(2, 1, 0, &body(index)), &mut Recorder::new())
                .unwrap_err()
                .0
                .contains("nothing")
        );
    }
}
