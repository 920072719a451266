//! The authority as an edge reaches it: over the network, or not at all.
//!
//! Invariant: what it does is done at one instant, whether or not anybody hears of it.

use std::sync::{Arc, Mutex};

use model::{
    BoxFuture,
    ledger::{
        Authority, AuthorityError, Holder, HolderId, Inherited, OpenRequest, Opening, Registered,
        Report, ReportAnswer, Standing, Stranded, Will, WindowAccount, WindowKey,
    },
};

use super::{
    books::Books,
    network::{Network, Place},
};

type Answer<'a, T> = BoxFuture<'a, Result<T, AuthorityError>>;

pub(super) struct Remote {
    pub(super) edge: usize,
    pub(super) network: Arc<Network>,
    pub(super) books: Arc<Mutex<Books>>,
}

impl Remote {
    fn call<T: Send + 'static>(
        &self,
        mut act: impl FnMut(&mut Books) -> T + Send + 'static,
    ) -> Answer<'_, T> {
        let books = Arc::clone(&self.books);
        let act = move || Some(act(&mut books.lock().unwrap()));
        Box::pin(async move { Ok(self.network.call(self.edge, Place::Authority, act).await) })
    }

    /// A call that changes more when it is repeated.
    fn call_once<T: Send + 'static>(
        &self,
        mut act: impl FnMut(&mut Books) -> T + Send + 'static,
    ) -> Answer<'_, T> {
        let books = Arc::clone(&self.books);
        let act = move || Some(act(&mut books.lock().unwrap()));
        Box::pin(async move { Ok(self.network.call_once(self.edge, Place::Authority, act).await) })
    }

    /// Such a call, that the authority may refuse.
    fn ask<T: Send + 'static>(
        &self,
        act: impl FnMut(&mut Books) -> Option<T> + Send + 'static,
    ) -> Answer<'_, T> {
        let answer = self.call_once(act);
        Box::pin(async move { answer.await?.ok_or_else(|| AuthorityError("refused".into())) })
    }
}

impl Authority for Remote {
    fn register(&self, holder: Holder) -> Answer<'_, Registered> {
        self.ask(move |books| books.register(holder.clone()))
    }

    fn open(&self, holder: HolderId, requests: Vec<OpenRequest>) -> Answer<'_, Vec<Opening>> {
        self.ask(move |books| books.open(holder, &requests))
    }

    fn report(&self, report: Report) -> Answer<'_, ReportAnswer> {
        self.call(move |books| books.report(&report))
    }

    fn confirm(
        &self,
        holder: HolderId,
        keys: Vec<WindowKey>,
    ) -> Answer<'_, Option<Vec<Option<Standing>>>> {
        self.call(move |books| books.confirm(holder, &keys))
    }

    fn close(&self, keys: Vec<WindowKey>) -> Answer<'_, ()> {
        self.call(move |books| books.close(&keys))
    }

    fn accounts(&self, keys: Vec<WindowKey>) -> Answer<'_, Vec<Option<WindowAccount>>> {
        self.call(move |books| books.accounts(&keys))
    }

    fn inherit(&self, will: Will) -> Answer<'_, Inherited> {
        self.call(move |books| books.inherit(&will))
    }

    fn strand_others(&self, heir: HolderId) -> Answer<'_, Stranded> {
        self.call_once(move |books| books.strand_others(heir))
    }

    fn end(&self, holder: HolderId) -> Answer<'_, ()> {
        self.call(move |books| books.end(holder))
    }
}
