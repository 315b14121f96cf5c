//! Clients' connections, as a shell keeps them.

use super::*;

impl Ensemble {
    /// A client connects; `None` if nobody answers.
    pub(crate) fn connect(&mut self, client: usize, member: usize) -> Option<usize> {
        if !self.is_running(member) || self.network.is_client_cut(client, member) {
            return None;
        }
        let connection = self.connections.len();
        self.connections.push(Connection {
            client,
            member,
            life: self.members[member].life,
            handle: None,
            outbox: Arc::default(),
            held: VecDeque::new(),
            waiting: false,
            server_closed: false,
            greeted: false,
            session: SessionId(0),
            to_server: Pipe::default(),
            to_client: Pipe::default(),
        });
        Some(connection)
    }

    pub(crate) fn push_to_server(&mut self, connection: usize, frame: Frame) {
        let delay = self.delay();
        let at_us = self.now_us() + delay;
        let it = &mut self.connections[connection];
        let at_us = it.to_server.push(at_us, frame);
        let cut = self.network.is_client_cut(it.client, it.member);
        if !it.to_server.scheduled && !cut {
            it.to_server.scheduled = true;
            self.queue.push_at(at_us, Event::ToServer(connection));
        }
    }

    pub(super) fn push_to_client(&mut self, connection: usize, frame: Frame) {
        let delay = self.delay();
        let at_us = self.now_us() + delay;
        let it = &mut self.connections[connection];
        let at_us = it.to_client.push(at_us, frame);
        let cut = self.network.is_client_cut(it.client, it.member);
        if !it.to_client.scheduled && !cut {
            it.to_client.scheduled = true;
            self.queue.push_at(at_us, Event::ToClient(connection));
        }
    }

    pub(super) fn server_receives(&mut self, connection: usize) {
        let now_us = self.now_us();
        let it = &mut self.connections[connection];
        it.to_server.scheduled = false;
        let (client, member, life) = (it.client, it.member, it.life);
        if self.network.is_client_cut(client, member) || it.server_closed {
            return;
        }
        if !self.is_alive(member, life) {
            self.connections[connection].server_closed = true;
            return self.push_to_client(connection, Frame::Closed);
        }
        let mut closed = false;
        let it = &mut self.connections[connection];
        while let Some(frame) = it.to_server.pop(now_us) {
            match frame {
                Frame::Bytes(bytes) => it.held.push_back(bytes),
                Frame::Closed => closed = true,
            }
        }
        if let Some(at_us) = it.to_server.next_us() {
            it.to_server.scheduled = true;
            self.queue.push_at(at_us, Event::ToServer(connection));
        }
        let it = &self.connections[connection];
        if it.handle.is_none() {
            let outbox = SimOutbox {
                connection,
                state: Arc::clone(&it.outbox),
                outboxes: Arc::clone(&self.members[member].outboxes),
            };
            let now = self.members[member].clocks.now(now_us);
            if let Some(node) = &self.members[member].node {
                let handle = node.open(format!("10.0.0.{client}"), Box::new(outbox), now);
                self.connections[connection].handle = Some(handle);
            }
            self.observe(member);
        }
        self.feed(connection);
        if closed {
            self.server_forgets(connection);
        }
    }

    /// Gives a server what a client has sent.
    pub(super) fn feed(&mut self, connection: usize) {
        loop {
            let it = &mut self.connections[connection];
            let member = it.member;
            if it.waiting || it.server_closed || it.held.is_empty() {
                return;
            }
            let Some(handle) = it.handle.clone() else { return };
            let mut frames = std::mem::take(&mut it.held);
            let session = it.session;
            self.note(12, member, connection as u64);
            if session != SessionId(0)
                && self.members[member].serving
                && self.clients[self.connections[connection].client].connection == Some(connection)
            {
                let now_us = self.now_us();
                self.checks.sessions.heard(session, now_us);
            }
            let before = frames.len();
            let mut served = None;
            self.call(member, |node, now, actions| {
                served = Some(node.on_frames(&handle, &mut frames, now, actions));
            });
            let progress = frames.len() < before;
            let it = &mut self.connections[connection];
            let later = std::mem::replace(&mut it.held, frames);
            it.held.extend(later);
            match served.map(|served| served.flow) {
                Some(Flow::Continue) if progress => {}
                Some(Flow::Continue) | None => return,
                Some(Flow::Wait) => {
                    it.waiting = true;
                    // It may have been resumed before it was known to wait.
                    self.drain_outbox(connection);
                    if self.connections[connection].waiting {
                        return;
                    }
                }
                Some(Flow::Close(why)) => {
                    self.say(|| format!("m{} closes a connection: {why}", member + 1));
                    if why.contains("zxid") {
                        self.met(Marker::ReconnectRefusedBehind);
                    }
                    self.server_forgets(connection);
                    return self.push_to_client(connection, Frame::Closed);
                }
            }
        }
    }

    pub(super) fn server_forgets(&mut self, connection: usize) {
        let it = &mut self.connections[connection];
        let member = it.member;
        if std::mem::replace(&mut it.server_closed, true) {
            return;
        }
        it.to_server.clear();
        it.held.clear();
        if let Some(handle) = it.handle.take()
            && let Some(node) = &self.members[member].node
        {
            node.on_closed(&handle);
        }
    }

    pub(super) fn drain_outbox(&mut self, connection: usize) {
        let it = &mut self.connections[connection];
        let (mut bytes, closing, resumed) = {
            let mut state = it.outbox.lock().expect("nobody panics while holding it");
            state.dirty = false;
            (state.bytes.split(), state.closing, std::mem::take(&mut state.resumed))
        };
        if it.server_closed {
            return;
        }
        while bytes.len() >= 4 {
            let len = usize::try_from(bytes.get_i32()).unwrap_or_default();
            let frame = bytes.split_to(len).freeze();
            if !std::mem::replace(&mut self.connections[connection].greeted, true)
                && let Ok(response) = ConnectResponse::decode(&frame)
            {
                self.connections[connection].session = response.session_id;
            }
            self.push_to_client(connection, Frame::Bytes(frame));
        }
        if resumed && std::mem::take(&mut self.connections[connection].waiting) {
            // The shell reads again, a moment later.
            let it = &mut self.connections[connection];
            if !it.to_server.scheduled {
                it.to_server.scheduled = true;
                self.queue.push(0, Event::ToServer(connection));
            }
        }
        if closing {
            self.server_forgets(connection);
            self.push_to_client(connection, Frame::Closed);
        }
    }

    pub(super) fn deliver_to_client(&mut self, connection: usize) {
        let now_us = self.now_us();
        let it = &mut self.connections[connection];
        it.to_client.scheduled = false;
        if self.network.is_client_cut(it.client, it.member) {
            return;
        }
        while let Some(frame) = self.connections[connection].to_client.pop(now_us) {
            self.client_receives(connection, frame);
            if self.violation.is_some() {
                return;
            }
        }
        let it = &mut self.connections[connection];
        if let Some(at_us) = it.to_client.next_us() {
            it.to_client.scheduled = true;
            self.queue.push_at(at_us, Event::ToClient(connection));
        }
    }
}
