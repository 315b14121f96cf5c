//! The tasks of connections: they can be started from any thread, and end with the server.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

/// Where the tasks of connections are started.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    runtime: Handle,
    all: Arc<Mutex<JoinSet<()>>>,
}

impl Tasks {
    /// Within a runtime.
    pub(crate) fn here() -> Self {
        Self { runtime: Handle::current(), all: Arc::default() }
    }

    fn all(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.all.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut all = self.all();
        while all.try_join_next().is_some() {} // those that have ended
        all.spawn_on(task, &self.runtime)
    }

    /// Ends all of them.
    pub(crate) async fn stop(&self) {
        let mut all = std::mem::take(&mut *self.all());
        all.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_are_started_from_any_thread_and_end_together() {
        let tasks = Tasks::here();
        let kept = Arc::new(());
        let (elsewhere, held) = (tasks.clone(), Arc::clone(&kept));
        let spawn = move || {
            elsewhere.spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
        };
        std::thread::spawn(spawn).join().unwrap();
        assert_eq!(Arc::strong_count(&kept), 2);
        tasks.stop().await;
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
