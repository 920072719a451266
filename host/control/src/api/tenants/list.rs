//! `GET /admin/tenants?limit=&cursor=&slug=&status=&plan=`: tenants in the order of creation.
//!
//! Invariant: a client that follows `next_cursor` sees every tenant that was there when
//! it began exactly once, whatever is created meanwhile.

use axum::{extract::State, http::Uri, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::tenant::{Status, TenantId};
use schemars::JsonSchema;
use serde::Serialize;

use super::view::TenantView;
use crate::{
    api::{
        Api,
        caller::Caller,
        fields::{Fields, query},
        json,
        problem::ApiError,
        rules,
    },
    store::TenantFilter,
};

/// Tenants of a page unless asked otherwise.
pub(in crate::api) const LIMIT_DEFAULT: u32 = 50;
/// Tenants of the longest page: about 200 KB of JSON.
pub(in crate::api) const LIMIT_MAX: u32 = 200;

/// Which tenants.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the query that `read` reads")]
pub(in crate::api) struct ListQuery {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 unless given.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
    slug: Option<String>,
    status: Option<Status>,
    plan: Option<String>,
}

/// Tenants in the order of their creation.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TenantPage")]
pub(in crate::api) struct Page<'a> {
    items: Vec<TenantView<'a>>,
    next_cursor: Option<String>,
}

struct Asked {
    filter: TenantFilter,
    after: Option<TenantId>,
    limit: u32,
}

pub(in crate::api) async fn list(
    caller: Caller,
    State(api): State<Api>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = read(&caller, &uri)?;
    let page = api.store.tenants(&asked.filter, asked.after, asked.limit).await?;
    let catalog = api.catalog.borrow();
    let view = |stored| TenantView::of(stored, &catalog, &api.store);
    Ok(json(Page {
        items: page.tenants.iter().map(view).collect(),
        next_cursor: page.next_after.map(cursor),
    }))
}

fn read(caller: &Caller, uri: &Uri) -> Result<Asked, ApiError> {
    let mut fields = Fields::new(query(uri)?);
    let slug = fields.optional("slug", |value| rules::text(value).map(str::to_owned));
    let status = fields.optional("status", rules::status);
    let plan = fields.optional("plan", |value| rules::text(value).map(str::to_owned));
    let after = fields.optional("cursor", |value| {
        position(rules::text(value)?).ok_or_else(|| "must be a next_cursor given here".to_owned())
    });
    let limit = fields.optional("limit", |value| rules::number(value, 1, LIMIT_MAX.into()));
    fields.finish()?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok());
    // The operator sees all; a parent itself and those below it.
    let filter = TenantFilter { slug, status, plan, within: caller.tenant() };
    Ok(Asked { filter, after, limit: limit.unwrap_or(LIMIT_DEFAULT) })
}

pub(in crate::api) fn cursor(after: TenantId) -> String {
    URL_SAFE_NO_PAD.encode(after.0.as_bytes())
}

pub(in crate::api) fn position(cursor: &str) -> Option<TenantId> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    uuid::Uuid::from_slice(&bytes).ok().map(TenantId)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Backend, Control, on_both, tenant};

    const PATH: &str = "/api/v1/admin/tenants";

    on_both![
        pages_hold_every_tenant_once_in_the_order_of_creation,
        a_page_that_ends_with_the_last_tenant_is_the_last_page,
        slug_status_and_plan_filter,
        every_bad_parameter_is_named,
    ];

    async fn pages_hold_every_tenant_once_in_the_order_of_creation(on: Backend) {
        let control = Control::start(on).await;
        for number in 0..7 {
            control.create(&tenant(&format!("tenant-{number}"))).await;
            control.clock.advance_ms(1);
        }
        let (mut slugs, mut pages, mut path) = (Vec::new(), 0, format!("{PATH}?limit=3"));
        loop {
            let page = control.get(&path).await;
            assert_eq!(page.status, 200, "{}", page.text);
            pages += 1;
            let items = page.json["items"].as_array().expect("items");
            slugs.extend(items.iter().map(|item| item["slug"].as_str().expect("text").to_owned()));
            match page.json["next_cursor"].as_str() {
                Some(cursor) => path = format!("{PATH}?limit=3&cursor={cursor}"),
                None => break,
            }
        }
        let expected: Vec<_> = (0..7).map(|number| format!("tenant-{number}")).collect();
        assert_eq!((slugs, pages), (expected, 3));
    }

    async fn a_page_that_ends_with_the_last_tenant_is_the_last_page(on: Backend) {
        let control = Control::start(on).await;
        control.create(&tenant("only")).await;
        let page = control.get(&format!("{PATH}?limit=1")).await;
        assert_eq!(page.json["items"][0]["slug"], "only");
        assert!(page.json["next_cursor"].is_null());
    }

    async fn slug_status_and_plan_filter(on: Backend) {
        let control = Control::start(on).await;
        let one = control.create(&tenant("one")).await;
        control.create(&tenant("two")).await;
        control.post(&format!("{PATH}/{}/suspend", one["id"].as_str().expect("text"))).await;
        for (query, expected) in [
            ("slug=two", vec!["two"]),
            ("status=suspended", vec!["one"]),
            ("status=trial&slug=one", vec![]),
            ("plan=enterprise&slug=two", vec!["two"]),
            ("plan=developer", vec![]),
            ("slug=%27%20OR%201%3D1", vec![]),
        ] {
            let page = control.get(&format!("{PATH}?{query}")).await;
            let items = page.json["items"].as_array().expect("items");
            let slugs: Vec<_> =
                items.iter().map(|item| item["slug"].as_str().expect("text")).collect();
            assert_eq!(slugs, expected, "{query}");
        }
    }

    async fn every_bad_parameter_is_named(on: Backend) {
        let control = Control::start(on).await;
        let answer = control.get(&format!("{PATH}?limit=0&cursor=x&status=gone&colour=red")).await;
        assert_eq!(answer.bad_fields(), ["status", "cursor", "limit", "colour"]);
        assert_eq!(control.get(&format!("{PATH}?slug=a&slug=b")).await.bad_fields(), ["slug"]);
    }
}
