//! Periodic jobs.

mod alerts;
mod deliver;
