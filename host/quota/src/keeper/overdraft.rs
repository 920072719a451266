//! Keeps tokens aside for plans with `overdraft`: drawn once a window, given back at its end.
//!
//! Invariant: kept tokens are debited before one of them is in sight of a request, lie in a
//! lease record like others, and are sealed with their window, with a limit that falls, with
//! another size, and with the process. They are not filled up within a window: so many per
//! edge and window, however many outages there are.

use std::{collections::BTreeSet, sync::Arc};

use model::ledger::{EpochRef, InstallPermit, KeepRequest, Opening, WindowKey};
use tokio::time::Instant;

use super::{
    Call, CallFailed, Id, Keeper,
    account::{Account, GRANT_MAX, Lease, Via},
    bounded,
    report::Word,
};
use crate::slot::NEVER;

/// Accounts in one call: it is a handful of statements for each.
const KEYS_MAX: usize = 256;

/// What an account keeps.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) lease: Option<Lease>,
    /// In a call, or in the next.
    pub(super) asking: bool,
    /// The size that was asked for.
    size: u64,
    /// The latest epoch that was kept in this window.
    latest: u64,
    /// Nothing is asked for before; on the monotonic clock, ms.
    not_before: u64,
}

/// Tranches to keep: wanted, and under way.
#[derive(Default)]
pub(super) struct KeepCall {
    wanted: BTreeSet<Id>,
    sent: Vec<(Id, WindowKey, u32)>,
    pub(super) call: Call<Vec<Opening>>,
}

impl Keeper {
    /// Brings what an account keeps up to its window, limit and plan.
    pub(super) fn keep_aside(&mut self, account: &mut Account) {
        self.count_kept(account);
        if self.window_of(account) != Some(account.key.window) {
            self.retire_kept(account);
            return;
        }
        let size = account.slot().overdraft.size().min(GRANT_MAX);
        let stale = account.kept.lease.as_ref().is_some_and(|lease| {
            let record = self.shared.map.record(lease.record);
            let sealed = record.is_none_or(|record| record.tokens(lease.generation).is_none());
            sealed || account.kept.size != size
        });
        if stale {
            self.retire_kept(account);
        }
        let kept = &mut account.kept;
        let scarce = self.records.free() < self.shared.map.capacity() as usize / 8;
        let early = self.shared.clock.monotonic_ms() < kept.not_before;
        let idle = size == 0 || kept.lease.is_some() || kept.asking;
        if idle || scarce || early || self.stopping.is_some() || self.ended {
            return;
        }
        kept.asking = true;
        kept.size = size;
        let id = account.id();
        self.keeps.wanted.insert(id);
    }

    pub(super) fn start_keep(&mut self) {
        let paused = Instant::now() < self.outage.retry_at || self.stopping.is_some();
        if self.keeps.call.is_some() || self.keeps.wanted.is_empty() || paused {
            return;
        }
        let mut requests = Vec::new();
        while requests.len() < KEYS_MAX
            && let Some(id) = self.keeps.wanted.pop_first()
        {
            let Some(account) = self.accounts.get(&id).filter(|a| a.kept.asking) else { continue };
            let (version, limit) = account.slot().limit();
            let (key, Kept { latest, size, .. }) = (account.key, &account.kept);
            requests.push(KeepRequest { key, latest: *latest, limit, tokens: *size });
            self.keeps.sent.push((id, key, version));
        }
        if requests.is_empty() {
            return;
        }
        self.shared.metrics.calls_keep.inc();
        let (authority, holder) = (Arc::clone(&self.authority), self.holder);
        let limit = self.call_limit();
        self.keeps.call =
            Some(Box::pin(async move { bounded(limit, authority.keep(holder, requests)).await }));
    }

    pub(super) fn on_kept(&mut self, answer: Result<Vec<Opening>, CallFailed>) {
        let sent = std::mem::take(&mut self.keeps.sent);
        match answer {
            Ok(openings) => {
                self.recovered();
                for ((id, key, version), opening) in sent.into_iter().zip(openings) {
                    let same = self.accounts.get(&id).is_some_and(|account| account.key == key);
                    match opening {
                        Opening::Opened(permit) if !same => self.keep_nothing(&permit),
                        opening => self.with(id, |keeper, account| {
                            if same {
                                account.kept.asking = false;
                                keeper.take_kept(account, version, opening);
                            }
                        }),
                    }
                }
            }
            Err(error) => {
                // What was debited is told of by the next answer, and sealed.
                let asking = |(id, key, _): &(Id, WindowKey, u32)| {
                    let account = self.accounts.get(id)?;
                    (account.key == *key && account.kept.asking).then_some(*id)
                };
                let again: Vec<Id> = sent.iter().filter_map(asking).collect();
                self.keeps.wanted.extend(again);
                self.failed("keep", &error);
            }
        }
    }

    fn take_kept(&mut self, account: &mut Account, version: u32, opening: Opening) {
        match opening {
            Opening::Opened(permit) => {
                account.kept.latest = permit.epoch();
                let wanted = account.slot().overdraft.size().min(GRANT_MAX) == account.kept.size;
                let same_limit = account.slot().limit().0 == version;
                let sealed = account.sealed_early(permit.epoch());
                if wanted && same_limit && !sealed && self.stopping.is_none() {
                    self.hold(account, &permit);
                } else {
                    self.keep_nothing(&permit);
                }
            }
            Opening::Lost { latest } => {
                account.kept.latest = latest;
                self.words.push(Word::Seal(EpochRef { key: account.key, epoch: latest }));
            }
            Opening::Exhausted | Opening::Parked => {
                let pause = self.shared.config.empty_cache_ms;
                account.kept.not_before = self.shared.clock.monotonic_ms().saturating_add(pause);
            }
            Opening::Elsewhere { window } => {
                self.take_elsewhere(account, window);
                self.serve_account(account);
            }
        }
    }

    /// Puts a tranche in a record, in sight of requests that nobody answers.
    fn hold(&mut self, account: &mut Account, permit: &InstallPermit) {
        let index = self.records.take();
        let Some(record) = index.and_then(|index| self.shared.map.record(index)) else {
            self.keep_nothing(permit);
            return;
        };
        let (index, generation) = (index.unwrap_or_default(), self.records.next_generation());
        let of = EpochRef { key: permit.key(), epoch: permit.epoch() };
        let tokens = u32::try_from(permit.tranche()).unwrap_or(u32::MAX);
        record.begin(&of, permit.tranche(), generation, tokens);
        account.slot().overdraft.publish(generation, index, account.key.window.end);
        account.kept.lease = Some(Lease {
            via: Via::Direct,
            record: index,
            generation,
            epoch: permit.epoch(),
            tranche: permit.tranche(),
            renew_at: NEVER,
            expires: NEVER,
            counted: (0, 0),
            reported: (0, 0),
        });
    }

    /// Gives back a tranche that nothing was spent of.
    fn keep_nothing(&mut self, permit: &InstallPermit) {
        self.words.push(Word::Seal(EpochRef { key: permit.key(), epoch: permit.epoch() }));
    }

    /// Seals what the account keeps: what was not spent comes back.
    pub(super) fn retire_kept(&mut self, account: &mut Account) {
        let Some(mut lease) = account.kept.lease.take() else { return };
        account.slot().overdraft.withdraw();
        self.finish(account, &lease);
        account.meter.count(account.index, lease.news(&self.shared));
    }

    fn count_kept(&self, account: &mut Account) {
        let index = account.index;
        if let Some(lease) = &mut account.kept.lease {
            let news = lease.news(&self.shared);
            account.meter.count(index, news);
        }
    }
}
