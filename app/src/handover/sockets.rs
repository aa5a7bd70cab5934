//! Sockets at addresses that the process before this one may be about to let go of.

use std::io::{ErrorKind, Result};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// What `bind` makes, tried again for a while where the address is in use.
pub async fn bound<T, F: Future<Output = Result<T>>>(bind: impl Fn() -> F) -> Result<T> {
    let until = world::clock::monotonic() + PATIENCE;
    loop {
        match bind().await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && world::clock::monotonic() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            made => return made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bound;
    use std::cell::Cell;
    use std::io::ErrorKind;

    #[tokio::test]
    async fn an_address_in_use_is_waited_for_and_anything_else_is_told() {
        let tries = Cell::new(0);
        let made = bound(|| async {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(ErrorKind::AddrInUse.into()) } else { Ok(tries.get()) }
        });
        assert_eq!(made.await.unwrap(), 3);
        let refused = bound(|| async { Err::<(), _>(ErrorKind::PermissionDenied.into()) }).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
