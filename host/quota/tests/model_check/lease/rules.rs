//! The rules of the protocol, each of which can be taken away.

/// Which rules hold; removing one is one line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A dispatcher never takes tokens back because their holder is silent.
    pub no_return_by_timeout: bool,
    /// Every start of a process is a new holder.
    pub new_holder_per_start: bool,
    /// A message with a lower number than the last does nothing, one with the same number
    /// brings the recorded grant.
    pub seq_rises: bool,
    /// Returned tokens count only in the epoch that they came from.
    pub returns_labelled: bool,
    /// A holder spends only what lies within bounds that it confirmed after it registered.
    pub confirm: bool,
    /// A grant of an epoch that was sealed, or is not within the bounds, is dropped.
    pub late_grants_dropped: bool,
    /// A tranche is credited only when every holder has sealed it or is accounted for.
    pub credit_after_seals: bool,
    /// The holders are listed after the commit that closes the epoch.
    pub listed_after_closing: bool,
    /// A refund after the seal leaves the final figure alone.
    pub late_refunds_apart: bool,
    /// A lease file is trusted only within the uptime in which it was written.
    pub same_boot: bool,
    /// A lost holder may have spent what the dispatcher says is out, whatever it reported.
    pub lost_share_from_close: bool,
    /// After CLOSE nothing of the epoch is granted.
    pub close_forbids: bool,
    /// CLOSE answers only for the server life that the epoch was opened for.
    pub close_fenced: bool,
    /// A holder that was declared lost confirms nothing any more.
    pub lost_cannot_confirm: bool,
}

impl Rules {
    pub(crate) const ALL: Self = Self {
        no_return_by_timeout: true,
        new_holder_per_start: true,
        seq_rises: true,
        returns_labelled: true,
        confirm: true,
        late_grants_dropped: true,
        credit_after_seals: true,
        listed_after_closing: true,
        late_refunds_apart: true,
        same_boot: true,
        lost_share_from_close: true,
        close_forbids: true,
        close_fenced: true,
        lost_cannot_confirm: true,
    };
}

/// How far a search goes, and what may happen in it.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub rules: Rules,
    pub limit: u8,
    /// The largest tranche.
    pub tranche: u8,
    /// Smaller tranches too, so that one can be opened before the other is used up.
    pub small_tranches: bool,
    /// At most [`super::state::EPOCHS`].
    pub epochs: u8,
    /// Messages of each holder, at most [`super::state::MESSAGES`].
    pub messages: u8,
    pub servers: usize,
    pub refunds: u8,
    /// Processes are killed and inherited.
    pub kills: bool,
    /// Machines are lost, and holders are declared lost, alive or not.
    pub losses: bool,
    /// Tranches for one holder, past the dispatcher.
    pub direct: bool,
}
