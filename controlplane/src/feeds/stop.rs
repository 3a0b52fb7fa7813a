//! The order to stop, given once and heard by every task.

use tokio::sync::watch;

/// Who gives the order.
#[derive(Debug)]
pub struct StopOrder(watch::Sender<bool>);

/// Who waits for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// An order not yet given, and its first listener.
#[must_use]
pub fn channel() -> (StopOrder, Stop) {
    let (order, stop) = watch::channel(false);
    (StopOrder(order), Stop(stop))
}

impl StopOrder {
    /// Gives the order. Giving it again does nothing.
    pub fn give(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Waits for the order. Whoever could have given it being gone counts as given.
    pub async fn ordered(&mut self) {
        drop(self.0.wait_for(|given| *given).await);
    }
}
