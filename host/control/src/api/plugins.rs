//! Plugins over the API: a tenant's own below `/tenants/{tenant_id}/plugins`, the
//! operator's below `/admin/plans/{plan}/plugins` and `/admin/plugins`, by the same
//! handlers.
//!
//! Uploading takes one `curl -F name=geo -F component=@geo.wasm URL`. Invariant: no
//! version exists that the edge has not validated, compiled and tried, and whoever is
//! answered that a version is active finds it in force here.

mod form;
mod lifecycle;
mod manifest;
mod scope;
mod settings;
#[cfg(test)]
pub(super) mod tests;
mod upload;
mod view;

use axum::{
    extract::State,
    http::{HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use model::{
    access::Right,
    plugin::{PluginTerms, Refusal},
    problem::Problem,
};

use self::scope::{OfPlugin, OfScope, OfVersion};
pub(super) use self::upload::UPLOADS_MAX;
use super::{
    Api,
    endpoint::Endpoint,
    json,
    page::{Asked, Page, PageQuery},
    problem::{ApiError, Conflict},
    tenants::view::etag,
};
use crate::store::PluginError;

/// Bytes of the longest upload: the largest component, and room for the form around it.
const UPLOAD_BYTES_MAX: usize = (model::plugin::COMPONENT_BYTES_MAX as usize) + (1 << 20);
/// Steps of a plugin's history that are shown.
const HISTORY_MAX: u32 = 200;

/// The endpoints of every scope.
pub(super) fn endpoints() -> Vec<Endpoint> {
    macro_rules! of_scope {
        ($scope:literal, $read:ident, $manage:ident, $whose:literal) => {
            [
                Endpoint::get(concat!($scope, "/plugins"), list)
                    .right(Right::$read)
                    .summary(concat!("Plugins of ", $whose, ", by name"))
                    .query::<PageQuery>()
                    .answers::<Page<view::PluginView>>(200),
                Endpoint::post(concat!($scope, "/plugins"), upload::create)
                    .right(Right::$manage)
                    .summary(concat!(
                        "Upload a plugin of ",
                        $whose,
                        ": curl -F name=geo -F component=@geo.wasm"
                    ))
                    .multipart::<form::NewPluginForm>(UPLOAD_BYTES_MAX)
                    .answers::<view::PluginView>(201),
                Endpoint::get(concat!($scope, "/plugins/{plugin}"), show)
                    .right(Right::$read)
                    .summary("A plugin with its versions")
                    .answers::<view::PluginView>(200),
                Endpoint::patch(concat!($scope, "/plugins/{plugin}"), lifecycle::switch)
                    .right(Right::$manage)
                    .summary("Turn a plugin off for every request, or on again")
                    .header("If-Match", "Only this plugin (ETag) is switched.")
                    .merge_patch::<lifecycle::SwitchBody>()
                    .answers::<view::PluginView>(200),
                Endpoint::delete(concat!($scope, "/plugins/{plugin}"), lifecycle::remove)
                    .right(Right::$manage)
                    .summary("Remove a plugin with its versions")
                    .answers_empty(204),
                Endpoint::get(concat!($scope, "/plugins/{plugin}/config"), settings::read)
                    .right(Right::$read)
                    .summary("How a plugin is set")
                    .answers::<settings::ConfigView>(200),
                Endpoint::put(concat!($scope, "/plugins/{plugin}/config"), settings::put)
                    .right(Right::$manage)
                    .summary("Set a plugin as a whole; its version has to accept it")
                    .header("If-Match", "Only these settings (ETag) are changed.")
                    .body::<settings::ConfigBody>()
                    .answers::<settings::ConfigView>(200),
                Endpoint::get(concat!($scope, "/plugins/{plugin}/history"), history)
                    .right(Right::$read)
                    .summary("Which version decided since when, the newest first")
                    .query::<PageQuery>()
                    .answers::<Page<view::StepView>>(200),
                Endpoint::post(concat!($scope, "/plugins/{plugin}/versions"), upload::add)
                    .right(Right::$manage)
                    .summary("Upload another version: curl -F component=@geo.wasm")
                    .multipart::<form::NewVersionForm>(UPLOAD_BYTES_MAX)
                    .answers::<view::VersionView>(201)
                    .answers::<view::VersionView>(200),
                Endpoint::get(concat!($scope, "/plugins/{plugin}/versions"), versions)
                    .right(Right::$read)
                    .summary("Versions of a plugin, the newest first")
                    .query::<PageQuery>()
                    .answers::<Page<view::VersionView>>(200),
                Endpoint::get(concat!($scope, "/plugins/{plugin}/versions/{version}"), version)
                    .right(Right::$read)
                    .summary("A version, by its number or 12 digits of its SHA-256")
                    .answers::<view::VersionView>(200),
                Endpoint::get(
                    concat!($scope, "/plugins/{plugin}/versions/{version}/component"),
                    download,
                )
                .right(Right::$read)
                .summary("The file of a version, as it was uploaded")
                .answers_text(200, "application/wasm"),
                Endpoint::post(concat!($scope, "/plugins/{plugin}/activate"), lifecycle::activate)
                    .right(Right::$manage)
                    .summary("Have a version decide")
                    .body::<lifecycle::ActivateBody>()
                    .answers::<view::PluginView>(200),
                Endpoint::post(concat!($scope, "/plugins/{plugin}/rollback"), lifecycle::roll_back)
                    .right(Right::$manage)
                    .summary("Take the active version back; the one before decides again")
                    .answers::<view::PluginView>(200),
            ]
        };
    }
    let tenant = of_scope!("/tenants/{tenant_id}", PluginsRead, PluginsManage, "a tenant");
    let plan = of_scope!("/admin/plans/{plan}", PlatformRead, PlatformManage, "a plan");
    let platform = of_scope!("/admin", PlatformRead, PlatformManage, "the platform");
    tenant.into_iter().chain(plan).chain(platform).collect()
}

async fn list(
    State(api): State<Api>,
    OfScope(scope, _): OfScope,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    let page = asked.cut(api.store.plugins(&scope).await?, |plugin| plugin.name.to_string());
    Ok(json(page.map(|plugin| view::PluginView::of(&plugin))))
}

async fn show(State(api): State<Api>, of: OfPlugin) -> Result<Response, ApiError> {
    let plugin = of.find(&api).await?;
    Ok((etag(plugin.version), json(view::PluginView::of(&plugin))).into_response())
}

async fn versions(State(api): State<Api>, of: OfPlugin, uri: Uri) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    let page = asked.cut(of.find(&api).await?.versions, |version| newest_first(version.number));
    Ok(json(page.map(|version| view::VersionView::of(&version))))
}

async fn version(State(api): State<Api>, of: OfVersion) -> Result<Response, ApiError> {
    let (_, version) = of.find(&api).await?;
    Ok(json(view::VersionView::of(&version)))
}

async fn history(State(api): State<Api>, of: OfPlugin, uri: Uri) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    let steps = api.store.plugin_history(&of.scope, &of.name, HISTORY_MAX).await?;
    let page = asked.cut(steps, |step| newest_first(step.seq));
    Ok(json(page.map(view::StepView::of)))
}

/// The place of something that is numbered, the highest number first.
fn newest_first(number: u64) -> String {
    format!("{:016x}", u64::MAX - number)
}

async fn download(State(api): State<Api>, of: OfVersion) -> Result<Response, ApiError> {
    let (plugin, version) = of.find(&api).await?;
    let bytes = api.store.plugin_component(&plugin.scope, version.component).await?;
    let file = format!("attachment; filename=\"{}-{}.wasm\"", plugin.name, version.number);
    let file = HeaderValue::try_from(file).map_err(|_| ApiError::NotFound)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/wasm")),
        (header::CONTENT_DISPOSITION, file),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, bytes.ok_or(ApiError::NotFound)?).into_response())
}

/// The answer to the author of a plugin that was refused.
fn refused(refusal: Refusal) -> ApiError {
    let Refusal { status, code, detail, errors, log } = refusal;
    let mut problem = Problem::new(status, code, "The plugin is refused").detail(detail);
    problem.errors = errors;
    if !log.is_empty() {
        problem = problem.with("log", log);
    }
    ApiError::Plugin(Box::new(problem))
}

impl From<PluginError> for ApiError {
    fn from(error: PluginError) -> Self {
        let conflict =
            |code, title| Self::Conflict(Conflict { code, title, detail: format!("{error}.") });
        match error {
            PluginError::NotFound => Self::NotFound,
            PluginError::NoSuchVersion => Self::field("version", error.to_string()),
            PluginError::Taken => conflict("plugin-exists", "The plugin exists"),
            PluginError::TooMany(_) => Self::TooMany(format!("{error}; remove one.")),
            PluginError::VersionMismatch => Self::VersionMismatch,
            PluginError::Transition { .. } => {
                conflict("plugin-transition", "The version may not move so")
            }
            PluginError::NothingBefore => {
                conflict("plugin-nothing-before", "There is nothing to go back to")
            }
            PluginError::Store(error) => Self::Store(error),
        }
    }
}

/// What a scope may upload; `NotFound` when there is no such tenant or plan.
fn terms_of(api: &Api, scope: &model::plugin::PluginScope) -> Result<PluginTerms, ApiError> {
    use model::plugin::PluginScope;
    let catalog = api.catalog.borrow();
    let of_plan = |plan: &str| catalog.plans.get(plan).map(|plan| plan.plugins.clone());
    match scope {
        PluginScope::Platform => Ok(PluginTerms::default()),
        PluginScope::Plan(plan) => of_plan(plan).ok_or(ApiError::NotFound),
        PluginScope::Tenant(id) => {
            let record = api.store.published(*id).ok_or(ApiError::NotFound)?;
            // A plan that is no longer declared allows what plans do by default.
            Ok(of_plan(&record.tenant.plan).unwrap_or_default())
        }
    }
}
