//! Whether PostgreSQL answers, as one look-out per process sees it.
//!
//! The look-out keeps a connection of its own and asks it once a second, or when a caller
//! has waited suspiciously long. While it gets no answer, and no new connection either,
//! every statement of the control plane fails with [`StoreError::Away`]: those under way,
//! and later ones at once. So an API call costs no five seconds of patience for each
//! connection that is refused, and a server that is frozen holds up nobody. Quota accounts
//! are not concerned: their callers have deadlines and a rule of their own.
//!
//! Invariant: a busy pool, a slow statement or a lost connection is not an absent server;
//! only the look-out says that it is away, after two attempts, and that it is back.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use sqlx::{ConnectOptions, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::store::StoreError;

/// How often the look-out asks, in ms: as soon as clients are told to come back.
const LOOK_EVERY_MS: u64 = 1_000;
/// How long an answer, or a connection, may take, in ms: longer than a server under full
/// load takes for a statement that does nothing.
const LOOK_MS_MAX: u64 = 1_500;
/// Wait between attempts to connect, in ms: a server that is back is noticed well within
/// the second that clients are told to wait.
const RETRY_MS: u64 = 250;
/// How long a caller waits before it has the look-out look at once, in ms: longer than
/// nearly all statements.
const DOUBT_MS: u64 = 500;

/// What the look-out sees. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Outlook(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    away: watch::Sender<bool>,
    look: Notify,
}

impl Outlook {
    /// Does `work`, unless the server is away or goes away meanwhile. What then becomes of a
    /// statement under way is not known, as when its connection breaks.
    pub(in crate::store) async fn unless_away<T, E: From<StoreError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut seen = self.0.away.subscribe();
        let away = async {
            // Nobody says so any more when the store is closed.
            if seen.wait_for(|away| *away).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let doubt = async {
            sleep(Duration::from_millis(DOUBT_MS)).await;
            self.doubt();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            () = away => Err(StoreError::Away.into()),
            done = work => done,
            never = doubt => match never {},
        }
    }

    /// Has the look-out look now.
    pub(super) fn doubt(&self) {
        self.0.look.notify_one();
    }

    /// Keeps looking until dropped.
    pub(super) fn keep(&self, server: PgConnectOptions) -> Lookout {
        let outlook = self.clone();
        Lookout(tokio::spawn(async move { outlook.look(server).await }).abort_handle())
    }

    async fn look(&self, server: PgConnectOptions) -> Infallible {
        loop {
            match in_time(server.connect()).await {
                Ok(mut connection) => {
                    if self.saw(true) {
                        tracing::info!("PostgreSQL answers again");
                    }
                    let error = self.ask(&mut connection).await;
                    // A connection may break alone: whether the next one comes decides.
                    tracing::debug!(%error, "the look-out lost its connection");
                }
                Err(error) => {
                    if self.saw(false) {
                        tracing::warn!(%error, "PostgreSQL is away; edges serve what they know");
                    }
                    sleep(Duration::from_millis(RETRY_MS)).await;
                }
            }
        }
    }

    /// Asks until there is no answer.
    async fn ask(&self, connection: &mut PgConnection) -> StoreError {
        loop {
            if let Err(error) = in_time(connection.ping()).await {
                return error;
            }
            let pause = Duration::from_millis(LOOK_EVERY_MS);
            // Either way: look.
            let _nobody_doubts = timeout(pause, self.0.look.notified()).await;
        }
    }

    /// Notes what was seen; whether that is news.
    fn saw(&self, answers: bool) -> bool {
        self.0.away.send_if_modified(|away| std::mem::replace(away, !answers) == answers)
    }
}

async fn in_time<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T, StoreError> {
    match timeout(Duration::from_millis(LOOK_MS_MAX), work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::Away),
    }
}

/// The look-out at work; ends when dropped.
#[derive(Debug)]
pub(in crate::store) struct Lookout(AbortHandle);

impl Lookout {
    pub(in crate::store) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    async fn stands_still(outlook: &Outlook) -> Result<(), StoreError> {
        outlook.unless_away(pending()).await
    }

    #[tokio::test]
    async fn work_ends_when_the_server_goes_away_and_none_begins_until_it_is_back() {
        let outlook = Outlook::default();
        assert!(!outlook.saw(true), "it was there all the time");
        let (ended, ()) = tokio::join!(stands_still(&outlook), async {
            assert!(outlook.saw(false) && !outlook.saw(false), "news once");
        });
        assert!(matches!(ended, Err(StoreError::Away)));
        let at_once = outlook.unless_away(ready(Ok::<_, StoreError>(1))).await;
        assert!(matches!(at_once, Err(StoreError::Away)));
        assert!(outlook.saw(true));
        let again = outlook.unless_away(ready(Ok::<_, StoreError>(1))).await;
        assert!(matches!(again, Ok(1)));
    }

    #[tokio::test]
    async fn whoever_waits_long_has_the_look_out_look() {
        let outlook = Outlook::default();
        tokio::select! {
            _ = stands_still(&outlook) => panic!("it never ends"),
            () = outlook.0.look.notified() => {}
        }
    }
}
