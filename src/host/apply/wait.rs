//! Waits for the kernel to remove an interface.

use std::time::Duration;

use crate::host::kernel::netlink::Kernel;

/// Number of times to list the interfaces.
const MAX_ATTEMPTS: u32 = 200;
/// Time between two lists.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until an interface is gone, for about a second at most.
///
/// The kernel destroys an io_uring after its process has closed it, and only then closes the last
/// queue of a TUN.
pub(crate) async fn wait_until_gone(name: &str) {
    let Ok(kernel) = Kernel::connect() else { return };
    for _ in 0..MAX_ATTEMPTS {
        match kernel.links().await {
            Ok(links) if links.iter().any(|link| link.name == name) => {
                tokio::time::sleep(INTERVAL).await;
            }
            Ok(_) | Err(_) => return,
        }
    }
}
