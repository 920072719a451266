//! Audit entries and the chain they form.
//!
//! Every mutation appends one entry to the chain of the tenant it is about, or to the
//! platform's. An entry's hash covers its content and the hash before it, so a changed,
//! missing or inserted entry breaks every later link. Invariant: the hash depends only on
//! what an API answer shows, so whoever reads a chain can verify it alone.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{clock::UnixMs, tenant::TenantId};

/// The chain of what belongs to no tenant: a tenant id that no tenant can have.
pub const PLATFORM_CHAIN: TenantId = TenantId(uuid::Uuid::nil());
/// What the first entry has in place of a hash before it: 64 zeros.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Version of the canonical form; the first item of it.
const FORM: &str = "leanvibe-audit-1";
/// The same of a signed head.
const HEAD_FORM: &str = "leanvibe-audit-head-1";

/// One entry as it is hashed, stored and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Position in its chain, from 1.
    pub seq: u64,
    /// When, in milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// Who: `operator`, `token:<id>`, `job:<name>`, `program`.
    pub actor: String,
    /// What: `tenant.create`, `token.revoke`.
    pub action: String,
    /// On which thing of the tenant; may be empty.
    pub target: String,
    /// SHA-256 of the thing before, in hex; `None` where there was none.
    pub before: Option<String>,
    /// SHA-256 of the thing after, in hex; `None` where there is none.
    pub after: Option<String>,
    /// JSON text; names of what changed, never personal data.
    pub detail: String,
    /// Hash of the entry before, in hex; [`GENESIS`] for the first.
    pub previous: String,
    /// Hash of this entry, in hex.
    pub hash: String,
}

impl AuditEntry {
    /// The hash that the entry should have in the chain of `chain`: SHA-256 over the
    /// compact JSON list of the form's name, the chain's id and every member but the hash.
    #[must_use]
    pub fn expected_hash(&self, chain: TenantId) -> String {
        let canonical = serde_json::json!([
            FORM,
            chain,
            self.seq,
            self.at_ms,
            self.actor,
            self.action,
            self.target,
            self.before,
            self.after,
            self.detail,
            self.previous,
        ]);
        digest(canonical.to_string().as_bytes())
    }

    /// Whether this entry may follow one of number `seq` and hash `previous`.
    #[must_use]
    pub fn follows(&self, chain: TenantId, seq: u64, previous: &str) -> bool {
        self.seq == seq + 1 && self.previous == previous && self.hash == self.expected_hash(chain)
    }

    /// When it was written.
    #[must_use]
    pub const fn at(&self) -> UnixMs {
        UnixMs(self.at_ms)
    }
}

/// What a chain ended in at some time, signed: an entry that is changed, or cut off, before
/// it shows against it, whoever did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// The chain.
    pub chain: TenantId,
    /// Number of its last entry.
    pub seq: u64,
    /// Hash of its last entry, in hex.
    pub hash: String,
    /// When it was signed, in milliseconds since 1970, UTC.
    pub at_ms: u64,
    /// Public half of the Ed25519 key, 32 bytes in base64.
    pub public_key: String,
    /// Signature of [`AuditHead::message`], in base64.
    pub signature: String,
}

impl AuditHead {
    /// What is signed: the compact JSON list of the form's name and every member but the key
    /// and the signature.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let canonical = serde_json::json!([HEAD_FORM, self.chain, self.seq, self.hash, self.at_ms]);
        canonical.to_string().into_bytes()
    }
}

/// SHA-256 in hex.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _infallible = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, previous: &str) -> AuditEntry {
        let mut entry = AuditEntry {
            seq,
            at_ms: 7,
            actor: "operator".into(),
            action: "tenant.create".into(),
            target: String::new(),
            before: None,
            after: Some(digest(b"{}")),
            detail: "{}".into(),
            previous: previous.into(),
            hash: String::new(),
        };
        entry.hash = entry.expected_hash(PLATFORM_CHAIN);
        entry
    }

    #[test]
    fn a_chain_holds_until_anything_in_it_changes() {
        let first = entry(1, GENESIS);
        let second = entry(2, &first.hash);
        assert!(first.follows(PLATFORM_CHAIN, 0, GENESIS));
        assert!(second.follows(PLATFORM_CHAIN, 1, &first.hash));
        assert!(!second.follows(PLATFORM_CHAIN, 0, GENESIS), "one is missing");
        let changes: [fn(&mut AuditEntry); 8] = [
            |entry| entry.at_ms += 1,
            |entry| entry.actor.push('x'),
            |entry| entry.action.push('x'),
            |entry| entry.target.push('x'),
            |entry| entry.before = Some(String::new()),
            |entry| entry.after = None,
            |entry| entry.detail.push(' '),
            |entry| entry.hash = GENESIS.into(),
        ];
        for change in changes {
            let mut changed = second.clone();
            change(&mut changed);
            assert!(!changed.follows(PLATFORM_CHAIN, 1, &first.hash), "{changed:?}");
        }
        let elsewhere = TenantId(uuid::Uuid::max());
        assert!(!second.follows(elsewhere, 1, &first.hash), "an entry of another chain");
    }
}
