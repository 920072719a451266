//! What runs beside the API, again and again.

mod lifecycle;

pub use lifecycle::TrialEnd;
