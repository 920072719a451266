//! What several edges share through one Redis.

mod access;
mod keyvalue;
mod rates;
mod sessions;
