//! `audit verify`: walks a chain of audit entries and recomputes every hash here.
//!
//! Invariant: nothing that the server says about the chain is believed; it only hands out
//! the entries. A break names the first entry that does not follow from those before it.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use clap::Subcommand;
use control::keys::verifies;
use model::{
    audit::{AuditEntry, AuditHead, GENESIS, PLATFORM_CHAIN},
    tenant::TenantId,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    output::{self, Progress},
    session::{ServerArgs, Session},
};
use crate::client::{Call, ClientError, Pages, TenantName};

/// Entries of a page.
const PAGE: usize = 200;

/// Arguments of `audit`.
#[derive(Debug, clap::Args)]
pub(super) struct AuditArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Verify a chain from its first entry to its head, and print the head. Keep the head:
    /// an entry that is missing at the end shows only against an older one.
    Verify(Verify),
}

/// Arguments of `audit verify`.
#[derive(Debug, clap::Args)]
struct Verify {
    /// The tenant, by slug or id; the platform's chain when absent.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<TenantName>,
    /// A head that was printed before, as NUMBER:HASH; the chain must go through it.
    #[arg(long, value_name = "HEAD", value_parser = head)]
    through: Option<Head>,
    /// Public key of the installation, in base64, as `/api/v1/audit/key` showed it when it
    /// was trusted: every signed head must be signed by it, and the chain go through it.
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
}

/// The last entry of a chain, as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Head {
    seq: u64,
    hash: String,
}

fn head(text: &str) -> Result<Head, String> {
    let refused = "must be a head as `audit verify` prints it: NUMBER:HASH";
    let (seq, hash) = text.split_once(':').ok_or(refused)?;
    let seq = seq.parse().map_err(|_| refused)?;
    Ok(Head { seq, hash: hash.to_owned() })
}

/// A walk along a chain.
#[derive(Debug)]
struct Walk {
    chain: TenantId,
    head: Head,
    /// Entries that the chain must have: number and hash.
    through: BTreeMap<u64, String>,
}

impl Walk {
    fn new(chain: TenantId, through: impl IntoIterator<Item = Head>) -> Self {
        let through = through.into_iter().map(|kept| (kept.seq, kept.hash)).collect();
        Self { chain, head: Head { seq: 0, hash: GENESIS.to_owned() }, through }
    }

    /// Takes the next entry, or says what is wrong with it.
    fn step(&mut self, entry: &AuditEntry) -> Result<(), String> {
        let next = self.head.seq + 1;
        if entry.seq != next {
            return Err(format!("entry {next} is missing: entry {} comes in its place", entry.seq));
        }
        if entry.previous != self.head.hash {
            return Err(format!("entry {next} does not follow the entry before it"));
        }
        if entry.hash != entry.expected_hash(self.chain) {
            return Err(format!("entry {next} was changed: its hash does not cover what it says"));
        }
        if self.through.get(&next).is_some_and(|kept| *kept != entry.hash) {
            return Err(format!("entry {next} is another than the head that was kept"));
        }
        self.head = Head { seq: next, hash: entry.hash.clone() };
        Ok(())
    }

    /// Ends the walk at the end of the chain.
    fn end(self) -> Result<Head, String> {
        match self.through.keys().next_back() {
            Some(kept) if *kept > self.head.seq => Err(format!(
                "the chain ends at entry {}, before the head that was kept ({kept})",
                self.head.seq
            )),
            _ => Ok(self.head),
        }
    }
}

pub(super) fn run(args: AuditArgs) -> Result<()> {
    let session = args.server.session()?;
    let AuditCommand::Verify(verify) = args.command;
    super::client_runtime()?.block_on(verify.run(&session))
}

impl Verify {
    async fn run(self, session: &Session) -> Result<()> {
        let (call, chain) = match &self.tenant {
            None => (Call::get(&["admin", "audit"]), PLATFORM_CHAIN),
            Some(tenant) => {
                let id = session.client.tenant_id(tenant).await?;
                let chain = id.parse().map_err(|_| ClientError::Unreadable("id"))?;
                (Call::get(&["tenants", &id, "audit"]), chain)
            }
        };
        let signed = match &self.public_key {
            Some(key) => signed_heads(session, chain, key).await?,
            None => Vec::new(),
        };
        let signatures = self.public_key.as_ref().map(|_| signed.len());
        let mut kept = signed;
        if let Some(head) = self.through {
            if kept.iter().any(|signed| signed.seq == head.seq && signed.hash != head.hash) {
                bail!("the chain is broken: entry {} was signed as another one", head.seq);
            }
            kept.push(head);
        }
        let mut walk = Walk::new(chain, kept);
        let mut pages = Pages::numbered(&session.client, call);
        let progress = Progress::new();
        while let Some(page) = pages.next(Some(PAGE)).await? {
            for item in page.items()? {
                let entry = AuditEntry::deserialize(item)
                    .map_err(|_| ClientError::Unreadable("audit entry"))?;
                if let Err(broken) = walk.step(&entry) {
                    bail!("the chain is broken: {broken}");
                }
            }
            progress.say(format_args!("{} entries verified", walk.head.seq));
        }
        drop(progress);
        match walk.end() {
            Ok(head) => output::text(&shown(&head, signatures, session.json)),
            Err(broken) => bail!("the chain is broken: {broken}"),
        }
    }
}

/// The heads of a chain that were signed, when all of them are by `key`.
async fn signed_heads(session: &Session, chain: TenantId, key: &str) -> Result<Vec<Head>> {
    let id = chain.to_string();
    // Of the platform's chain the API shows the latest head only.
    let (call, of_all) = match chain {
        PLATFORM_CHAIN => (Call::get(&["admin", "audit", "heads"]), true),
        _ => (Call::get(&["tenants", &id, "audit", "heads"]), false),
    };
    let mut pages = Pages::new(&session.client, call);
    let mut heads = Vec::new();
    while let Some(page) = pages.next(Some(PAGE)).await? {
        for item in page.items()? {
            let head =
                AuditHead::deserialize(item).map_err(|_| ClientError::Unreadable("signed head"))?;
            if head.chain == chain {
                heads.push(checked(head, key).map_err(|why| anyhow!("a signed head: {why}"))?);
            }
        }
        if of_all && !heads.is_empty() {
            break;
        }
    }
    Ok(heads)
}

/// What a signed head says, if it is signed by `key`.
fn checked(head: AuditHead, key: &str) -> Result<Head, String> {
    if head.public_key != key {
        return Err(format!("entry {} is signed with another key: {}", head.seq, head.public_key));
    }
    if !verifies(key, &head.message(), &head.signature) {
        return Err(format!("the signature of entry {} does not hold", head.seq));
    }
    Ok(Head { seq: head.seq, hash: head.hash })
}

fn shown(head: &Head, signatures: Option<usize>, json: bool) -> String {
    if json {
        let mut shown = Map::new();
        shown.insert("verified".to_owned(), head.seq.into());
        shown.insert("head".to_owned(), serde_json::json!(head));
        shown.extend(signatures.map(|signatures| ("signatures".to_owned(), signatures.into())));
        return format!("{}\n", Value::Object(shown));
    }
    let signed = signatures.map_or_else(String::new, |n| format!("{n} signed heads verified\n"));
    format!("{} entries verified\n{signed}head {}:{}\n", head.seq, head.seq, head.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for seq in 1..=length {
            let previous = entries.last().map_or(GENESIS, |entry| entry.hash.as_str()).to_owned();
            let mut entry = AuditEntry {
                seq,
                at_ms: seq,
                actor: "operator".into(),
                action: "tenant.create".into(),
                target: String::new(),
                before: None,
                after: None,
                detail: "{}".into(),
                previous,
                hash: String::new(),
            };
            entry.hash = entry.expected_hash(PLATFORM_CHAIN);
            entries.push(entry);
        }
        entries
    }

    fn walk(entries: &[AuditEntry], through: Option<Head>) -> Result<Head, String> {
        let mut walk = Walk::new(PLATFORM_CHAIN, through);
        entries.iter().try_for_each(|entry| walk.step(entry))?;
        walk.end()
    }

    #[test]
    fn a_whole_chain_ends_in_its_head() {
        let entries = chain(3);
        let kept = head(&format!("2:{}", entries[1].hash)).expect("a head");
        let end = Head { seq: 3, hash: entries[2].hash.clone() };
        assert_eq!(walk(&entries, Some(kept)), Ok(end));
        assert_eq!(walk(&[], None), Ok(Head { seq: 0, hash: GENESIS.into() }));
    }

    #[test]
    fn a_break_names_the_entry() {
        let mut missing = chain(4);
        missing.remove(1);
        assert!(walk(&missing, None).expect_err("a break").starts_with("entry 2 is missing"));
        let mut changed = chain(4);
        changed[2].actor = "nobody".into();
        assert!(walk(&changed, None).expect_err("a break").starts_with("entry 3 was changed"));
        let mut rehashed = chain(4);
        rehashed[1].action.push('x');
        rehashed[1].hash = rehashed[1].expected_hash(PLATFORM_CHAIN);
        let broken = walk(&rehashed, None).expect_err("a break");
        assert!(broken.starts_with("entry 3 does not follow"), "{broken}");
    }

    #[test]
    fn a_chain_that_was_cut_or_rewritten_shows_against_a_kept_head() {
        let entries = chain(3);
        let kept = Head { seq: 3, hash: entries[2].hash.clone() };
        assert!(walk(&entries[..2], Some(kept)).expect_err("a break").contains("ends at entry 2"));
        let other = Head { seq: 2, hash: GENESIS.into() };
        assert!(walk(&entries, Some(other)).expect_err("a break").contains("entry 2 is another"));
    }

    #[test]
    fn a_signed_head_is_believed_with_its_own_key_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |name| control::keys::HeadKey::open(&folder.path().join(name)).expect("a key");
        let (key, other) = (open("a"), open("b"));
        let entries = chain(3);
        let mut signed = AuditHead {
            chain: PLATFORM_CHAIN,
            seq: 3,
            hash: entries[2].hash.clone(),
            at_ms: 7,
            public_key: key.public().to_owned(),
            signature: String::new(),
        };
        signed.signature = key.sign(&signed.message());
        let kept = checked(signed.clone(), key.public()).expect("a head");
        assert_eq!(walk(&entries, Some(kept.clone())), Ok(kept.clone()));
        assert!(walk(&entries[..2], Some(kept)).expect_err("a break").contains("ends at entry 2"));
        let refused = checked(signed.clone(), other.public()).expect_err("a refusal");
        assert!(refused.contains("another key"), "{refused}");
        let forged = AuditHead { seq: 2, hash: entries[1].hash.clone(), ..signed };
        assert!(checked(forged, key.public()).expect_err("a refusal").contains("does not hold"));
    }

    #[test]
    fn a_head_is_a_number_and_a_hash() {
        assert!(head("7:ab").is_ok());
        for bad in ["", "7", "x:ab", ":ab"] {
            assert!(head(bad).is_err(), "{bad}");
        }
    }
}
