//! A window whose bounds are others than this edge thinks.
//!
//! It has not seen a change of the tenant's anchor yet, or was the last to see it. Invariant:
//! tokens are asked for only of the window that the authority has; which one that is, is asked
//! again when the time or the anchor points to another.

use model::window::Window;

use super::{Keeper, account::Account};

/// Pause before an account whose window cannot be told is looked at again, in ms: the clocks
/// of edge and authority differ by less.
const AGAIN_MS: u64 = 250;

/// What the authority said about a window that was asked for.
#[derive(Clone, Copy)]
pub(super) struct Elsewhere {
    wanted: Window,
    given: Window,
}

impl Keeper {
    /// The account's tokens are those of another window: it is entered with the next look.
    pub(super) fn take_elsewhere(&mut self, account: &mut Account, given: Window) {
        let now = self.shared.clock.now();
        let Some(wanted) = account.slot().window(now) else { return };
        tracing::warn!(
            tenant = %account.key.tenant.0,
            ?given,
            "a quota window has other bounds than this edge thought: it follows the authority"
        );
        account.elsewhere = Some(Elsewhere { wanted, given });
        if !given.contains(now) {
            account.retry_at = self.shared.clock.monotonic_ms() + AGAIN_MS;
            self.retries.insert(account.id());
        }
    }

    /// The window that holds now.
    pub(super) fn window_of(&self, account: &Account) -> Option<Window> {
        let now = self.shared.clock.now();
        let wanted = account.slot().window(now)?;
        let told = account.elsewhere.filter(|told| told.wanted == wanted);
        Some(told.map(|told| told.given).filter(|given| given.contains(now)).unwrap_or(wanted))
    }
}
