//! Who acts in a test: the world with its origins, the admin, tenants, raw clients.

mod backend;
mod client;
mod guest;
mod origin;
mod process;
mod raw;
mod receivers;
mod site;
mod world;

use std::{future::Future, time::Duration};

pub use backend::Backend;
pub(crate) use backend::on_both;
pub use client::{Client, Reply};
pub use guest::{guest, responder, router};
pub use origin::Origin;
pub use process::{EdgeProcess, binary};
pub use raw::{RawClient, raw_exchange};
pub use receivers::{Delivered, MailSink, WebhookReceiver};
pub use site::{Site, SiteOptions, prepare};
pub use world::{ADMIN_TOKEN, TenantActor, World, WorldOptions, policies_source, prepare_policies};

/// Longest that a test waits for something that must come true.
const EVENTUALLY: Duration = Duration::from_secs(20);

/// Waits until `check` gives a value; panics with `what` when it never does.
pub async fn eventually<T, F>(what: &str, check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_within(EVENTUALLY, what, check).await
}

/// The same for what takes its time by design, like the end of a lease.
pub async fn eventually_within<T, F>(bound: Duration, what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = tokio::time::Instant::now() + bound;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < end, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
