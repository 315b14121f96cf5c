use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use tokio::runtime::Handle;
use zk_client::Client;

use crate::commands::COMMANDS;

/// Completes commands, and paths from the server.
pub(crate) struct Completion {
    pub(crate) runtime: Handle,
    pub(crate) client: Arc<Mutex<Client>>,
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        let start = typed.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let word = &typed[start..];
        let candidates = if word.starts_with('/') {
            self.paths(word)
        } else if typed.trim() == word {
            COMMANDS
                .iter()
                .map(|spec| spec.name)
                .chain(crate::own::COMMANDS.iter().map(|own| own.name))
                .filter(|name| name.starts_with(word))
                .map(str::to_owned)
                .collect()
        } else {
            Vec::new()
        };
        let pair = |text: String| Pair { display: text.clone(), replacement: text };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}

impl Hinter for Completion {
    type Hint = String;
}

impl Completion {
    fn paths(&self, word: &str) -> Vec<String> {
        let client = self.client.lock().expect("nobody panics with it").clone();
        if !client.state().is_connected() {
            return Vec::new();
        }
        let (parent, prefix) = (zk_proto::path::parent(word), zk_proto::path::name(word));
        let children = client.get_children(parent, false);
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(2), children).await });
        let Ok(Ok(mut children)) = answer else { return Vec::new() };
        children.sort();
        children.retain(|child| child.starts_with(prefix));
        children.iter().map(|child| zk_proto::path::join(parent, child)).collect()
    }
}
