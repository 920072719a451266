//! The control plane: tenants, keys and usage, kept in a database and served as an API.
//!
//! The edge opens a [`Store`], feeds its directory into the snapshots of the data plane,
//! and runs [`serve`] on the control listener. `store/` speaks SQL, `api/` speaks JSON;
//! neither sees the other's types.
//!
//! Invariant: the data plane never waits for anything in here. To add an endpoint, give
//! it a file under `api/` and a line in `api/mod.rs`.

mod api;
mod jobs;
pub mod keys;
pub mod notify;
mod plans;
mod reservations;
mod serve;
pub mod store;
#[cfg(test)]
mod testing;

pub use api::{Deps, Readiness, router};
pub use jobs::{Jobs, TrialEnd};
pub use plans::numbered;
pub use reservations::{OpenError as ReservationsError, Reservations};
pub use serve::serve;
pub use store::{Actor, AdminToken, Store, StoreError};
