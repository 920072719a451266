//! Rules of the protocol that a faulty part of the world may break.

use std::time::Duration;

/// Which rules hold. Those are broken by the world around the engine: what the engine
/// itself has to keep is what the simulation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// A server that restarts from a dump has another fence.
    pub(super) fence: bool,
    /// A LEASE that is older than the last does nothing.
    pub(super) seq_rises: bool,
    /// INSTALL is sent once.
    pub(super) install_once: bool,
    /// A closing epoch is credited when everybody has sealed it, and not after a while.
    pub(super) credit_after_seals: bool,
    /// After a power loss the machine has another boot id.
    pub(super) same_boot: bool,
    /// Figures are taken as they are reported, and not cut down to what other holders' running
    /// ones leave of the tranche: of those a token may have come back and be spent elsewhere.
    pub(super) figures_whole: bool,
    /// A tranche of a member is no larger than what its pools have left.
    pub(super) pools: bool,
    /// What a member used stays with its pool when the member leaves.
    pub(super) pools_carry: bool,
}

impl Rules {
    pub(super) const ALL: Self = Self {
        fence: true,
        seq_rises: true,
        install_once: true,
        credit_after_seals: true,
        same_boot: true,
        figures_whole: true,
        pools: true,
        pools_carry: true,
    };
}

/// After how long a closing epoch is credited where [`Rules::credit_after_seals`] is not kept.
pub(super) const CREDITED_AFTER: Duration = Duration::from_millis(500);
