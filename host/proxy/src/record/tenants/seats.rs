//! Which tenants have series of their own.
//!
//! Every tenant with traffic is a candidate with a score that halves from election to
//! election; the best take the seats. A seat that is free goes to whoever comes first, so
//! that a small installation sees all its tenants at once. Invariant: the elected are
//! never more than the configured number, and the pinned are always seated.

use std::collections::{HashMap, HashSet};

use model::tenant::TenantId;

use super::{ELECTION_MS, NOBODY, OTHER, Who};
use crate::config::MetricsConfig;

/// A seated tenant keeps its seat against scores up to this much higher (a quarter): two
/// tenants of one size do not take turns.
const INCUMBENT_BONUS: f64 = 1.25;
/// A candidate with less than one request two elections ago is forgotten.
const SCORE_MIN: f64 = 0.5;

/// Who sits, and who might.
pub(super) struct Seats {
    top_k: usize,
    pinned: HashSet<Box<str>>,
    seated: HashMap<TenantId, Seat>,
    /// The seated that are not pinned.
    elected: usize,
    candidates: HashMap<TenantId, Candidate>,
    elected_ms: u64,
}

struct Seat {
    slug: Box<str>,
    pinned: bool,
}

struct Candidate {
    slug: Box<str>,
    /// As of the last election.
    score: f64,
    /// Requests since.
    fresh: u64,
}

impl Seats {
    pub(super) fn new(config: &MetricsConfig, now_ms: u64) -> Self {
        Self {
            top_k: config.tenant_top_k,
            pinned: config.pinned_tenants.iter().map(|slug| slug.as_str().into()).collect(),
            seated: HashMap::new(),
            elected: 0,
            candidates: HashMap::new(),
            elected_ms: now_ms,
        }
    }

    /// Counts requests of a tenant, and says under whom they are shown.
    pub(super) fn count(&mut self, id: TenantId, slug: &str, requests: u64) -> Who {
        let new = || Candidate { slug: slug.into(), score: 0.0, fresh: 0 };
        self.candidates.entry(id).or_insert_with(new).fresh += requests;
        if self.seated.contains_key(&id) {
            return Who::Tenant(id);
        }
        let pinned = self.pinned.contains(slug);
        if nameless(slug) || !(pinned || self.elected < self.top_k) {
            return Who::Other;
        }
        self.elected += usize::from(!pinned);
        self.seated.insert(id, Seat { slug: slug.into(), pinned });
        Who::Tenant(id)
    }

    /// Under whom a tenant is shown.
    pub(super) fn of(&self, id: TenantId) -> Who {
        if self.seated.contains_key(&id) { Who::Tenant(id) } else { Who::Other }
    }

    pub(super) fn slug(&self, id: TenantId) -> Option<&str> {
        self.seated.get(&id).map(|seat| &*seat.slug)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = TenantId> {
        self.seated.keys().copied()
    }

    /// Fills the seats anew once the last election is old enough; who lost one.
    pub(super) fn elect_when_due(&mut self, now_ms: u64) -> Vec<TenantId> {
        if now_ms.saturating_sub(self.elected_ms) < ELECTION_MS {
            return Vec::new();
        }
        self.elected_ms = now_ms;
        self.candidates.retain(|_, candidate| {
            candidate.score = candidate.score / 2.0 + candidate.fresh as f64;
            candidate.fresh = 0;
            candidate.score >= SCORE_MIN
        });
        let winners = self.winners();
        let lost: Vec<TenantId> = self
            .seated
            .iter()
            .filter(|(id, seat)| !seat.pinned && !winners.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in &lost {
            self.seated.remove(id);
        }
        for id in winners {
            if let Some(candidate) = self.candidates.get(&id) {
                let slug = candidate.slug.clone();
                self.seated.entry(id).or_insert(Seat { slug, pinned: false });
            }
        }
        self.elected = self.seated.values().filter(|seat| !seat.pinned).count();
        lost
    }

    /// The best candidates, as many as there are seats.
    fn winners(&self) -> HashSet<TenantId> {
        let mut ranked: Vec<(f64, TenantId)> = self
            .candidates
            .iter()
            .filter(|(_, candidate)| {
                !self.pinned.contains(&candidate.slug)
                    && ![OTHER, NOBODY].contains(&&*candidate.slug)
            })
            .map(|(id, candidate)| {
                let seated = self.seated.contains_key(id);
                (if seated { candidate.score * INCUMBENT_BONUS } else { candidate.score }, *id)
            })
            .collect();
        if ranked.len() > self.top_k {
            let last = self.top_k;
            ranked.select_nth_unstable_by(last, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            ranked.truncate(last);
        }
        ranked.into_iter().map(|(_, id)| id).collect()
    }
}

/// Whether the slug is a label of something else.
fn nameless(slug: &str) -> bool {
    [OTHER, NOBODY].contains(&slug)
}
