//! Tenants: created, listed, read, patched, suspended and resumed.

pub(super) mod create;
pub(super) mod gdpr;
pub(super) mod list;
pub(super) mod patch;
pub(super) mod read;
pub(super) mod status;
pub(super) mod view;

#[cfg(test)]
mod tests {
    mod anchor;
}
