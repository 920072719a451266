use std::sync::Arc;

use bytes::Bytes;
use model::{
    plugin::{
        Admitted, Manifest, PluginName, PluginRecord, PluginScope, PluginSettings, Rehearsed,
        VersionState,
    },
    tenant::TenantId,
};
use uuid::Uuid;

use super::{NewVersion, PluginError, StoredPlugin};
use crate::{
    store::{Actor, Store},
    testing::{Backend, Control, acme, id_of, on_both, tenant},
};

const BY: &Actor = &Actor::Operator;
/// As many as no test has.
const MANY: u64 = 100;

on_both![
    a_version_is_published_while_it_is_active_and_its_plugin_on,
    a_rollback_goes_to_the_version_that_was_active_before_and_no_further_than_there_is_one,
    at_most_one_version_is_active_whatever_is_asked_for,
    a_removed_plugin_leaves_no_component_and_its_numbers_are_not_given_again,
    the_oldest_versions_that_nothing_needs_go_first,
    a_plugin_belongs_to_its_scope_alone,
    the_same_file_with_the_same_manifest_is_the_same_version,
    a_restart_finds_what_was_published,
    settings_of_another_version_are_not_overwritten,
];

fn name() -> PluginName {
    "geo".parse().expect("a name")
}

fn new(component: &str) -> NewVersion {
    let probe = Rehearsed { log: vec!["tried".to_owned()] };
    NewVersion {
        component: Bytes::from(component.to_owned()),
        manifest: Manifest::default(),
        admitted: Admitted { hooks: vec!["request-hook"], memory_bytes: 7, probe },
    }
}

/// A control plane with a tenant and its plugin `geo` at version 1, a draft.
async fn with_plugin(on: Backend) -> (Control, PluginScope) {
    let control = Control::start(on).await;
    let scope = PluginScope::Tenant(id_of(&control.create(&acme()).await));
    create(&control.store, &scope).await.expect("a plugin");
    (control, scope)
}

async fn create(store: &Arc<Store>, scope: &PluginScope) -> Result<StoredPlugin, PluginError> {
    let settings = PluginSettings::default();
    store.create_plugin(BY, scope, &name(), settings, new("one"), MANY).await
}

async fn add(control: &Control, scope: &PluginScope, component: &str) -> u64 {
    let version = new(component);
    let added = control.store.add_plugin_version(BY, scope, &name(), version, MANY).await;
    added.expect("a version").1
}

async fn activate(control: &Control, scope: &PluginScope, number: u64) -> StoredPlugin {
    control.store.activate_plugin(BY, scope, &name(), number).await.expect("active")
}

fn published(store: &Store) -> Vec<Arc<PluginRecord>> {
    let directory = store.directory();
    let plugins = Arc::clone(&directory.borrow().plugins);
    plugins.to_vec()
}

/// The numbers that are published.
fn numbers(control: &Control) -> Vec<u64> {
    published(&control.store).iter().map(|record| record.number).collect()
}

fn states(plugin: &StoredPlugin) -> Vec<(u64, VersionState)> {
    plugin.versions.iter().map(|version| (version.number, version.state)).collect()
}

async fn a_version_is_published_while_it_is_active_and_its_plugin_on(on: Backend) {
    let (control, scope) = with_plugin(on).await;
    let (store, name) = (&control.store, name());
    assert_eq!(numbers(&control), [0; 0]);
    activate(&control, &scope, 1).await;
    let record = Arc::clone(&published(store)[0]);
    assert_eq!((&record.scope, &record.name, record.size), (&scope, &name, 3));
    assert_eq!(record.component, model::plugin::ComponentDigest::of(b"one"));
    store.set_plugin_enabled(BY, &scope, &name, false, None).await.expect("off");
    assert_eq!(numbers(&control), [0; 0]);
    store.set_plugin_enabled(BY, &scope, &name, true, None).await.expect("on");
    assert_eq!(numbers(&control), [1]);
    let settings = PluginSettings { order: 7, ..PluginSettings::default() };
    store.set_plugin_settings(BY, &scope, &name, settings, None).await.expect("set");
    assert_eq!(published(store)[0].settings.order, 7);
    store.remove_plugin(BY, &scope, &name).await.expect("removed");
    assert_eq!(numbers(&control), [0; 0]);
    let history = store.plugin_history(&scope, &name, 9).await.expect("history");
    let actions: Vec<_> = history.iter().map(|step| step.action.as_str()).collect();
    assert_eq!(actions, ["remove", "enable", "disable", "activate"]);
    let acts = store.audit_entries(Some(scope.owner()), 0, 50).await.expect("a chain");
    assert!(acts.iter().any(|entry| entry.action == "plugin.activate"), "{acts:?}");
}

async fn a_rollback_goes_to_the_version_that_was_active_before_and_no_further_than_there_is_one(
    on: Backend,
) {
    let (control, scope) = with_plugin(on).await;
    let store = &control.store;
    activate(&control, &scope, 1).await;
    let nothing = store.roll_back_plugin(BY, &scope, &name()).await;
    assert!(matches!(nothing, Err(PluginError::NothingBefore)), "{nothing:?}");
    for component in ["two", "three"] {
        let number = add(&control, &scope, component).await;
        activate(&control, &scope, number).await;
    }
    let back = store.roll_back_plugin(BY, &scope, &name()).await.expect("back");
    use VersionState::{Active, Retired, RolledBack};
    assert_eq!(states(&back), [(3, RolledBack), (2, Active), (1, Retired)]);
    assert_eq!(numbers(&control), [2]);
    let back = store.roll_back_plugin(BY, &scope, &name()).await.expect("back");
    assert_eq!(states(&back), [(3, RolledBack), (2, RolledBack), (1, Active)]);
    let nothing = store.roll_back_plugin(BY, &scope, &name()).await;
    assert!(matches!(nothing, Err(PluginError::NothingBefore)), "{nothing:?}");
    assert_eq!(numbers(&control), [1], "what was refused changed nothing");
    let again = activate(&control, &scope, 3).await;
    assert_eq!(states(&again), [(3, Active), (2, RolledBack), (1, Retired)]);
}

async fn at_most_one_version_is_active_whatever_is_asked_for(on: Backend) {
    let (control, scope) = with_plugin(on).await;
    add(&control, &scope, "two").await;
    let asked = (0..12).map(|n| {
        let (store, scope) = (Arc::clone(&control.store), scope.clone());
        async move {
            match n % 3 {
                2 => drop(store.roll_back_plugin(BY, &scope, &name()).await),
                n => drop(store.activate_plugin(BY, &scope, &name(), n + 1).await),
            }
        }
    });
    futures_util::future::join_all(asked).await;
    let plugin = control.store.plugin(&scope, &name()).await.expect("a store").expect("it");
    let active = plugin.versions.iter().filter(|version| version.state == VersionState::Active);
    let active: Vec<_> = active.map(|version| version.number).collect();
    assert_eq!(active.len(), 1);
    assert_eq!(numbers(&control), active);
}

async fn a_removed_plugin_leaves_no_component_and_its_numbers_are_not_given_again(on: Backend) {
    let (control, scope) = with_plugin(on).await;
    let store = &control.store;
    let digest = model::plugin::ComponentDigest::of(b"one");
    let held = store.plugin_component(&scope, digest).await.expect("a store");
    assert_eq!(held.as_deref(), Some(&b"one"[..]));
    store.remove_plugin(BY, &scope, &name()).await.expect("removed");
    assert_eq!(store.plugin_component(&scope, digest).await.expect("a store"), None);
    assert_eq!(store.plugins(&scope).await.expect("a store"), []);
    let gone = store.remove_plugin(BY, &scope, &name()).await;
    assert!(matches!(gone, Err(PluginError::NotFound)), "{gone:?}");
    let again = create(store, &scope).await.expect("a plugin");
    assert_eq!(states(&again), [(2, VersionState::Draft)]);
    let taken = create(store, &scope).await;
    assert!(matches!(taken, Err(PluginError::Taken)), "{taken:?}");
    let settings = PluginSettings::default();
    let other = "other".parse().expect("a name");
    let most = store.create_plugin(BY, &scope, &other, settings, new("x"), 1).await;
    assert!(matches!(most, Err(PluginError::TooMany(1))), "{most:?}");
}

async fn the_oldest_versions_that_nothing_needs_go_first(on: Backend) {
    let (control, scope) = with_plugin(on).await;
    activate(&control, &scope, 1).await;
    let two = add(&control, &scope, "two").await;
    activate(&control, &scope, two).await;
    for component in ["three", "four", "five"] {
        let version = new(component);
        let added = control.store.add_plugin_version(BY, &scope, &name(), version, 3).await;
        added.expect("a version");
    }
    let plugin = control.store.plugin(&scope, &name()).await.expect("a store").expect("it");
    let numbers: Vec<_> = plugin.versions.iter().map(|version| version.number).collect();
    assert_eq!(numbers, [5, 2, 1], "the newest, the active one, the one to go back to");
    let three = model::plugin::ComponentDigest::of(b"three");
    assert_eq!(control.store.plugin_component(&scope, three).await.expect("a store"), None);
    let back = control.store.roll_back_plugin(BY, &scope, &name()).await.expect("back");
    assert_eq!(back.active().map(|active| active.number), Some(1));
}

async fn a_plugin_belongs_to_its_scope_alone(on: Backend) {
    let (control, scope) = with_plugin(on).await;
    let other = PluginScope::Tenant(id_of(&control.create(&tenant("other")).await));
    let scopes = [other, PluginScope::Plan("team".into()), PluginScope::Platform];
    let digest = model::plugin::ComponentDigest::of(b"one");
    for foreign in &scopes {
        assert_eq!(control.store.plugins(foreign).await.expect("a store"), [], "{foreign:?}");
        let moved = control.store.activate_plugin(BY, foreign, &name(), 1).await;
        assert!(matches!(moved, Err(PluginError::NotFound)), "{moved:?}");
        let bytes = control.store.plugin_component(foreign, digest).await.expect("a store");
        assert_eq!(bytes, None, "{foreign:?}");
    }
    for own in &scopes {
        create(&control.store, own).await.expect("the name is free here");
        activate(&control, own, 1).await;
    }
    activate(&control, &scope, 1).await;
    let published: Vec<_> =
        published(&control.store).iter().map(|record| record.policy_name()).collect();
    assert_eq!(published, ["platform/geo", "plan/geo", "tenant/geo", "tenant/geo"]);
    assert_eq!(PluginScope::Platform.owner(), TenantId(Uuid::nil()));
}

async fn the_same_file_with_the_same_manifest_is_the_same_version(on: Backend) {
    let (control, scope) = with_plugin(on).await;
    assert_eq!(add(&control, &scope, "one").await, 1);
    let manifest = Manifest { capabilities: vec!["keyvalue".into()], ..Manifest::default() };
    let version = NewVersion { manifest, ..new("one") };
    let added = control.store.add_plugin_version(BY, &scope, &name(), version, MANY).await;
    assert_eq!(added.expect("a version").1, 2, "another manifest is another version");
}

async fn a_restart_finds_what_was_published(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    create(&store, &PluginScope::Platform).await.expect("a plugin");
    store.activate_plugin(BY, &PluginScope::Platform, &name(), 1).await.expect("active");
    let before = published(&store);
    store.close().await;
    drop(store);
    assert_eq!(published(&*database.open().await), before);
}

async fn settings_of_another_version_are_not_overwritten(on: Backend) {
    let (control, scope) = with_plugin(on).await;
    let set = |order, expected| {
        let settings = PluginSettings { order, ..PluginSettings::default() };
        let store = Arc::clone(&control.store);
        let scope = scope.clone();
        async move { store.set_plugin_settings(BY, &scope, &name(), settings, expected).await }
    };
    let first = set(1, Some(1)).await.expect("set");
    assert_eq!((first.version, first.settings.order), (2, 1));
    let late = set(2, Some(1)).await;
    assert!(matches!(late, Err(PluginError::VersionMismatch)), "{late:?}");
}
