//! The tasks of one connection out that speaks HTTP/2. hyper gives one to the wire and one to each body, and they go on for as long
//! as the server keeps them waiting, whoever has gone meanwhile: here they end with their holders. Used by `http::upstream`.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use hyper::rt::Executor;
use tokio::task::JoinSet;

/// Ends them all when it is dropped.
#[derive(Default)]
pub struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Starts more of them, for as long as somebody holds them.
#[derive(Clone)]
pub struct Starter(Weak<Mutex<JoinSet<()>>>);

impl Tasks {
    /// A weak one, for it is held by the tasks themselves.
    pub fn starter(&self) -> Starter {
        Starter(Arc::downgrade(&self.0))
    }
}

impl<F> Executor<F> for Starter
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let Some(tasks) = self.0.upgrade() else {
            return;
        };
        // Every change under this lock is a single insertion or removal.
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }
}
