//! What several edges share through one Redis.

mod access;
mod rates;
mod sessions;
