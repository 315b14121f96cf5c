//! Connections that have not said who they are.

use std::collections::VecDeque;

use tokio::task::AbortHandle;

/// When there is one more, the oldest goes: members say at once who they are, so a flood of silent
/// connections does not keep them out.
pub(crate) const UNKNOWN_MAX: usize = 64;

/// Their tasks, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Unknown(VecDeque<AbortHandle>);

impl Unknown {
    /// Adds a connection's task; whether the oldest had to go for it.
    pub(crate) fn push(&mut self, task: AbortHandle) -> bool {
        self.0.retain(|task| !task.is_finished());
        let oldest = (self.0.len() >= UNKNOWN_MAX).then(|| self.0.pop_front()).flatten();
        if let Some(oldest) = &oldest {
            oldest.abort();
        }
        self.0.push_back(task);
        oldest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_goes() {
        let mut unknown = Unknown::default();
        let mut tasks = Vec::new();
        for count in 0..=UNKNOWN_MAX {
            let task = tokio::spawn(std::future::pending::<()>());
            assert_eq!(unknown.push(task.abort_handle()), count == UNKNOWN_MAX);
            tasks.push(task);
        }
        assert!(tasks.remove(0).await.unwrap_err().is_cancelled());
        tasks.remove(0).abort();
        tokio::task::yield_now().await;
        let last = tokio::spawn(std::future::pending::<()>());
        assert!(!unknown.push(last.abort_handle()), "one has ended by itself");
        assert!(tasks.iter().all(|task| !task.is_finished()));
    }
}
