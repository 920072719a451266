//! A copy of everything that a dispatcher knows, as a dump of Redis is: for the simulation.

use super::*;

impl InProcess {
    /// The same tranches and grants as of now, in another life or the same.
    pub(crate) fn copied(&self, fence: Fence) -> Self {
        let ledgers = Mutex::new(self.ledgers().clone());
        Self { fence, clock: Arc::clone(&self.clock), ledgers }
    }
}
