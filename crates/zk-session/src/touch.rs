use std::collections::BTreeMap;

use zk_proto::SessionId;

use crate::tracker::Heard;

/// The sessions that a learner heard of since it last told its leader, who alone decides about their
/// end (`LearnerSessionTracker`).
#[derive(Debug, Default)]
pub struct TouchTable {
    sessions: BTreeMap<SessionId, Touched>,
}

#[derive(Debug)]
struct Touched {
    timeout_ms: i32,
    heard: Heard,
    attached: bool,
}

impl TouchTable {
    /// A session has a connection here, which notes in what is returned that it was heard of. It was,
    /// just now.
    pub fn attach(&mut self, id: SessionId, timeout_ms: i32, now_ms: i64) -> Heard {
        let heard = Heard::new(now_ms);
        let touched = Touched { timeout_ms, heard: heard.clone(), attached: true };
        self.sessions.insert(id, touched);
        heard
    }

    /// A session whose connection is elsewhere was heard of.
    pub fn touch(&mut self, id: SessionId, timeout_ms: i32, now_ms: i64) {
        let heard = Heard::new(now_ms);
        let new = Touched { timeout_ms, heard, attached: false };
        let touched = self.sessions.entry(id).or_insert(new);
        touched.timeout_ms = timeout_ms;
        touched.heard.touch(now_ms);
    }

    /// Its connection is gone; what was heard until now counts.
    pub fn detach(&mut self, id: SessionId) {
        if let Some(touched) = self.sessions.get_mut(&id) {
            touched.attached = false;
        }
    }

    /// The session is over.
    pub fn remove(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// Calls `tell` with each session that was heard of since the last call, and its timeout in ms.
    pub fn take(&mut self, mut tell: impl FnMut(SessionId, i32)) {
        self.sessions.retain(|id, touched| {
            if touched.heard.take() {
                tell(*id, touched.timeout_ms);
            }
            touched.attached
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    fn take(table: &mut TouchTable) -> Vec<(SessionId, i32)> {
        let mut all = Vec::new();
        table.take(|id, timeout_ms| all.push((id, timeout_ms)));
        all
    }

    #[test]
    fn a_session_that_is_elsewhere_is_told_when_it_was_heard_of() {
        let mut table = TouchTable::default();
        table.touch(A, 300, 0);
        table.touch(A, 350, 1);
        assert_eq!(take(&mut table), [(A, 350)]);
        assert_eq!(take(&mut table), [], "it was not heard of since");
        let here = table.attach(A, 300, 2);
        table.touch(A, 300, 3);
        assert_eq!(take(&mut table), [(A, 300)]);
        here.touch(4);
        assert_eq!(take(&mut table), [(A, 300)], "its connection here stays");
    }

    #[test]
    fn each_session_heard_of_is_told_once() {
        let mut table = TouchTable::default();
        let a = table.attach(A, 300, 0);
        table.attach(B, 400, 0);
        assert_eq!(take(&mut table), [(A, 300), (B, 400)]);
        assert_eq!(take(&mut table), []);
        a.touch(0);
        assert_eq!(take(&mut table), [(A, 300)], "the same moment is another touch");
        a.touch(5);
        table.remove(A);
        assert_eq!(take(&mut table), [], "a session that is over was told");
    }

    #[test]
    fn what_was_heard_before_the_client_left_is_told() {
        let mut table = TouchTable::default();
        let a = table.attach(A, 300, 0);
        take(&mut table);
        a.touch(7);
        table.detach(A);
        assert_eq!(take(&mut table), [(A, 300)]);
        a.touch(8);
        assert_eq!(take(&mut table), []);
        let again = table.attach(A, 500, 9);
        a.touch(10);
        assert_eq!(take(&mut table), [(A, 500)]);
        again.touch(11);
        assert_eq!(take(&mut table), [(A, 500)]);
    }
}
