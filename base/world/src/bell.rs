//! A bell: a small value, and who waits for it to become something.
//!
//! Promises that those who wait are woken in the order they came. tokio's `watch` does nearly the same, but wakes in an order drawn
//! by dice that nobody can load, and a [simulated](crate::simulated) cluster would never take the same way twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

#[derive(Debug)]
struct Shared<T> {
    value: Mutex<T>,
    rung: Notify,
}

impl<T> Shared<T> {
    fn value(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever rings.
#[derive(Debug)]
pub struct Bell<T> {
    shared: Arc<Shared<T>>,
}

/// Whoever listens.
#[derive(Debug)]
pub struct Listener<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Copy> Bell<T> {
    pub fn new(value: T) -> Self {
        Self { shared: Arc::new(Shared { value: Mutex::new(value), rung: Notify::new() }) }
    }

    pub fn listen(&self) -> Listener<T> {
        Listener { shared: Arc::clone(&self.shared) }
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        Arc::strong_count(&self.shared) - 1
    }

    /// Changes the value, and rings if `change` says so.
    pub fn change(&self, change: impl FnOnce(&mut T) -> bool) {
        let rings = change(&mut self.shared.value());
        if rings {
            self.shared.rung.notify_waiters();
        }
    }
}

impl<T: Copy> Listener<T> {
    pub fn value(&self) -> T {
        *self.shared.value()
    }

    /// Waits until `wanted` holds of the value, and returns it. May be dropped while it waits.
    pub async fn until(&self, wanted: impl Fn(&T) -> bool) -> T {
        loop {
            // Listened before the value is looked at: what is rung in between is not missed.
            let mut rung = std::pin::pin!(self.shared.rung.notified());
            rung.as_mut().enable();
            let value = self.value();
            if wanted(&value) {
                return value;
            }
            rung.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_woken_in_order_when_it_holds() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let bell = Bell::new(0);
            let woken = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = Vec::new();
            for number in 0..20 {
                let (listener, woken) = (bell.listen(), Arc::clone(&woken));
                tasks.push(crate::task::spawn("listener", async move {
                    let value = listener.until(|value| *value >= 2).await;
                    woken.lock().expect("no panic").push((number, value));
                }));
            }
            tokio::task::yield_now().await;
            assert_eq!(bell.listeners(), 20);
            bell.change(|value| {
                *value = 1;
                true
            });
            tokio::task::yield_now().await;
            bell.change(|value| {
                *value = 3;
                true
            });
            for task in tasks {
                task.join().await;
            }
            assert_eq!(*woken.lock().expect("no panic"), (0..20).map(|number| (number, 3)).collect::<Vec<_>>());
            assert_eq!(bell.listeners(), 0);
        });
    }
}
