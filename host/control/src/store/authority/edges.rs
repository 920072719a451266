//! Edges of the tests: holders that share dispatchers, on stores of their own.

use std::sync::Arc;

use model::{
    clock::ManualClock,
    ledger::{
        Authority, BootId, Bounds, EpochRef, Fence, Holder, HolderId, InstallPermit, LeaseReport,
        LostShare, OpenRequest, Opening, RedisFence, Report, ReportAnswer, Will, WindowKey,
    },
};
use uuid::Uuid;

use super::tests::NOON;
use crate::{
    store::{
        Store,
        db::{Purpose, sql},
    },
    testing::{Backend, Database, report_of},
};

/// A database that several edges use.
pub(super) struct World {
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) database: Database,
}

/// One run of one edge.
pub(super) struct Edge {
    pub(super) store: Arc<Store>,
    pub(super) id: HolderId,
    pub(super) boot: BootId,
    pub(super) number: u64,
}

impl World {
    pub(super) async fn new(on: Backend) -> Self {
        let clock = Arc::new(ManualClock::at(NOON));
        let database = on.database();
        let store = Store::open(&database.url(), Arc::clone(&clock) as _).await.expect("a store");
        Self { store, clock, database }
    }

    pub(super) async fn edge(&self, name: &str) -> Edge {
        Edge::on(&self.store, name).await
    }

    pub(super) async fn open(&self, key: WindowKey, fence: Fence, latest: u64) -> Opening {
        self.open_under(key, fence, latest, 1_000).await
    }

    pub(super) async fn open_under(
        &self,
        key: WindowKey,
        fence: Fence,
        latest: u64,
        limit: u64,
    ) -> Opening {
        let request = OpenRequest { key, fence, latest, limit, above: None, rate_per_s: 0 };
        let opener = match fence {
            Fence::Holder(holder) => holder,
            Fence::Redis(_) => self.anybody().await,
        };
        self.store.open(opener, vec![request]).await.expect("an answer").remove(0)
    }

    /// A holder that lives.
    async fn anybody(&self) -> HolderId {
        let mut tx = self.store.db.control(Purpose::Read).await.expect("begun");
        let living = sql("SELECT holder FROM quota_holder WHERE ended_at IS NULL LIMIT 1");
        let living = living.one(&mut tx).await;
        let (living,) = tx.end(living).await.expect("a living holder");
        HolderId(living)
    }

    pub(super) async fn opened(&self, key: WindowKey, fence: Fence, latest: u64) -> EpochRef {
        let permit = permit(self.open(key, fence, latest).await);
        EpochRef { key, epoch: permit.epoch() }
    }

    pub(super) async fn close(&self, key: WindowKey) {
        Authority::close(&*self.store, vec![key]).await.expect("closed");
    }

    /// What is charged by what is stored, and credited.
    pub(super) async fn account(&self, key: WindowKey) -> (u64, u64) {
        let accounts = self.store.accounts(vec![key]).await.expect("an answer");
        let account = accounts[0].expect("a window");
        (account.charged, account.credited)
    }

    pub(super) async fn audit(&self) {
        assert_eq!(self.store.audit_quotas().await.expect("an audit"), []);
    }
}

impl Edge {
    pub(super) async fn on(store: &Arc<Store>, name: &str) -> Self {
        let (id, boot) = (HolderId::random(), BootId(Uuid::new_v4()));
        store.register(Holder { id, edge: name.into(), boot }).await.expect("registered");
        Self { store: Arc::clone(store), id, boot, number: 0 }
    }

    pub(super) async fn send(&mut self, report: Report) -> ReportAnswer {
        self.number += 1;
        let report = Report { holder: self.id, number: self.number, ..report };
        self.store.report(report).await.expect("an answer")
    }

    /// Reports leases; what is sealed of them it is not yet through with.
    pub(super) async fn figures(&mut self, leases: Vec<LeaseReport>) -> ReportAnswer {
        self.send(Report { seals: Vec::new(), ..report_of(self.id, 0, leases) }).await
    }

    pub(super) async fn seal(&mut self, of: EpochRef) -> ReportAnswer {
        self.send(Report { seals: vec![of], ..report_of(self.id, 0, Vec::new()) }).await
    }

    /// Reports what CLOSE told of a lost holder.
    pub(super) async fn tell(
        &mut self,
        of: EpochRef,
        holder: HolderId,
        tokens: u64,
    ) -> ReportAnswer {
        let lost = vec![LostShare { of, holder, tokens }];
        self.send(Report { lost, ..report_of(self.id, 0, Vec::new()) }).await
    }

    pub(super) async fn bounds(&self, key: WindowKey) -> Option<Bounds> {
        let standings = self.store.confirm(self.id, vec![key]).await.expect("an answer")?;
        Some(standings[0].unwrap_or_default().bounds)
    }

    pub(super) fn will(&self, leases: Vec<LeaseReport>) -> Will {
        Will { predecessor: self.id, boot: self.boot, leases }
    }

    /// Another edge finds that this one has gone without a word.
    pub(super) async fn lost_to_heir(&self, name: &str) -> Edge {
        let heir = Self::on(&self.store, name).await;
        self.store.strand_others(heir.id).await.expect("stranded");
        heir
    }
}

pub(super) fn permit(opening: Opening) -> InstallPermit {
    match opening {
        Opening::Opened(permit) => permit,
        other => panic!("expected a tranche, got {other:?}"),
    }
}

/// The fence of one life of a Redis server.
pub(super) fn redis(life: u8) -> Fence {
    let id = |part: u8| format!("{part:02x}").repeat(20).parse().expect("an id");
    Fence::Redis(RedisFence { run_id: id(life), replid: id(0) })
}

/// Figures of one lease of a tranche of 8.
pub(super) fn lease(of: EpochRef, lease: u32, spent: u64, sealed: bool) -> LeaseReport {
    LeaseReport { of, tranche: 8, lease, spent, refunded: 0, sealed }
}
