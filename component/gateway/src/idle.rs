//! Unused connections to an endpoint.
//!
//! Promises that all threads share them, and that each takes those first that it is woken for anyway. Does not know how
//! long they may lie, or how many.

use crate::link::Link;
use crate::threads;

/// Of one endpoint.
#[derive(Default)]
pub(crate) struct Idle {
    by_thread: Vec<Vec<Link>>,
    count: usize,
}

impl Idle {
    /// The one used last, so that the surplus grows old and is closed.
    pub(crate) fn take(&mut self) -> Option<Link> {
        let own = self.by_thread.get_mut(threads::here()).and_then(Vec::pop);
        let link = own.or_else(|| self.by_thread.iter_mut().max_by_key(|links| links.len())?.pop())?;
        self.count -= 1;
        Some(link)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn put(&mut self, link: Link) {
        if self.by_thread.len() <= link.thread {
            self.by_thread.resize_with(link.thread + 1, Vec::new);
        }
        if let Some(links) = self.by_thread.get_mut(link.thread) {
            links.push(link);
            self.count += 1;
        }
    }

    /// Takes out those that are of no use, and keeps little of the others.
    pub(crate) fn sweep(&mut self, is_over: impl Fn(&mut Link) -> bool) -> Vec<Link> {
        let mut over = Vec::new();
        for links in &mut self.by_thread {
            over.extend(links.extract_if(.., |link| is_over(link)));
            links.iter_mut().for_each(Link::park);
        }
        self.count -= over.len();
        over
    }
}
