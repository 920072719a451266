use model::access::{Right, Rights, Role};

use super::*;
use crate::testing::{Backend, Control, acme, id_of, on_both, tenant as another};

on_both![
    a_token_verifies_until_it_is_revoked_and_its_text_is_nowhere,
    a_rotation_leaves_two_live_tokens_until_the_old_ones_end,
    a_rotation_never_lengthens_a_life_and_a_dead_token_is_not_rotated,
    a_token_of_another_tenant_is_neither_rotated_nor_revoked,
    there_are_at_most_so_many_live_tokens,
    the_last_use_is_noted_once_a_minute,
    a_dead_token_is_listed_for_a_quarter_and_then_forgotten,
];

fn tenant_admin(tenant: TenantId) -> NewToken {
    NewToken {
        tenant: Some(tenant),
        role: Role::TenantAdmin,
        scopes: Some(Rights::of(&[Right::UsageRead, Right::TokensRead])),
        name: "dashboard".to_owned(),
        expires_at: None,
    }
}

async fn verified(store: &Arc<Store>, text: &Secret) -> Option<TokenRecord> {
    let presented = key::parse_token(text.expose()).expect("a well-formed token");
    store.verify_token(&presented).await.expect("an answer")
}

async fn a_token_verifies_until_it_is_revoked_and_its_text_is_nowhere(on: Backend) {
    let control = Control::start(on).await;
    let tenant = id_of(&control.create(&acme()).await);
    let store = &control.store;
    let issued = store.issue_token(&Actor::Operator, tenant_admin(tenant)).await.expect("a token");
    let record = verified(store, &issued.text).await.expect("it lives");
    assert_eq!((record.tenant, record.role), (Some(tenant), Role::TenantAdmin));
    assert_eq!(record.scopes, Some(Rights::of(&[Right::UsageRead, Right::TokensRead])));
    let secret = issued.text.expose().rsplit('_').next().expect("a secret").as_bytes();
    let stored = control.stored_bytes();
    assert!(!stored.windows(secret.len()).any(|window| window == secret));
    let (other, ..) = key::mint_token(&[7; 40]);
    assert!(verified(store, &Secret::new(other)).await.is_none());
    store.revoke_token(&Actor::Operator, Some(tenant), &record.id).await.expect("revoked");
    assert!(verified(store, &issued.text).await.is_none());
    let listed = store.tokens(Some(tenant)).await.expect("tokens");
    assert!(listed[0].revoked_at.is_some());
}

async fn a_rotation_leaves_two_live_tokens_until_the_old_ones_end(on: Backend) {
    let control = Control::start(on).await;
    let tenant = id_of(&control.create(&acme()).await);
    let store = &control.store;
    let old = store.issue_token(&Actor::Operator, tenant_admin(tenant)).await.expect("a token");
    let until = store.clock.now().plus_ms(1_000);
    let id = &*old.record.id;
    let new = store
        .rotate_token(&Actor::Operator, Some(tenant), id, until, None)
        .await
        .expect("a new token");
    assert_eq!(new.record.rotated_from.as_deref(), Some(id));
    assert_eq!(new.record.scopes, old.record.scopes);
    assert!(
        verified(store, &old.text).await.is_some() && verified(store, &new.text).await.is_some()
    );
    control.clock.advance_ms(1_000);
    assert!(verified(store, &old.text).await.is_none());
    assert!(verified(store, &new.text).await.is_some());
}

async fn a_rotation_never_lengthens_a_life_and_a_dead_token_is_not_rotated(on: Backend) {
    let control = Control::start(on).await;
    let tenant = id_of(&control.create(&acme()).await);
    let store = &control.store;
    let end = store.clock.now().plus_ms(500);
    let short = NewToken { expires_at: Some(end), ..tenant_admin(tenant) };
    let old = store.issue_token(&Actor::Operator, short).await.expect("a token");
    let id = &*old.record.id;
    let far = end.plus_ms(10_000);
    store.rotate_token(&Actor::Operator, Some(tenant), id, far, None).await.expect("a new token");
    let listed = store.tokens(Some(tenant)).await.expect("tokens");
    let new = listed.iter().find(|token| token.rotated_from.is_some()).expect("the new one");
    assert_eq!(new.expires_at, Some(end), "as long a life as the old one was given");
    let held = listed.iter().find(|token| *token.id == *id).expect("the old one");
    assert_eq!(held.expires_at, Some(end));
    control.clock.advance_ms(500);
    let again = store.rotate_token(&Actor::Operator, Some(tenant), id, far, None).await;
    assert!(matches!(again, Err(TokenError::Dead)), "{again:?}");
}

async fn a_token_of_another_tenant_is_neither_rotated_nor_revoked(on: Backend) {
    let control = Control::start(on).await;
    let one = id_of(&control.create(&acme()).await);
    let two = id_of(&control.create(&another("two")).await);
    let store = &control.store;
    let token = store.issue_token(&Actor::Operator, tenant_admin(one)).await.expect("a token");
    let id = &*token.record.id;
    for elsewhere in [Some(two), None] {
        let revoked = store.revoke_token(&Actor::Operator, elsewhere, id).await;
        assert!(matches!(revoked, Err(TokenError::NotFound)), "{revoked:?}");
        let until = store.clock.now();
        let rotated = store.rotate_token(&Actor::Operator, elsewhere, id, until, None).await;
        assert!(matches!(rotated, Err(TokenError::NotFound)), "{rotated:?}");
    }
    assert!(verified(store, &token.text).await.is_some());
}

async fn there_are_at_most_so_many_live_tokens(on: Backend) {
    let control = Control::start(on).await;
    let tenant = id_of(&control.create(&acme()).await);
    let store = &control.store;
    let mut first = None;
    for _ in 0..TOKENS_MAX {
        let token = store.issue_token(&Actor::Operator, tenant_admin(tenant)).await;
        first.get_or_insert(token.expect("a token").record.id);
    }
    let more = store.issue_token(&Actor::Operator, tenant_admin(tenant)).await;
    assert!(matches!(more, Err(TokenError::TooMany)), "{more:?}");
    let first = first.expect("a token");
    store.revoke_token(&Actor::Operator, Some(tenant), &first).await.expect("revoked");
    store.issue_token(&Actor::Operator, tenant_admin(tenant)).await.expect("room again");
    let nobody = TenantId(Uuid::max());
    let none = store.issue_token(&Actor::Operator, tenant_admin(nobody)).await;
    assert!(matches!(none, Err(TokenError::NotFound)), "{none:?}");
}

async fn the_last_use_is_noted_once_a_minute(on: Backend) {
    let control = Control::start(on).await;
    let store = &control.store;
    let platform = NewToken {
        tenant: None,
        role: Role::Admin,
        scopes: None,
        name: "ci".to_owned(),
        expires_at: None,
    };
    let token = store.issue_token(&Actor::Operator, platform).await.expect("a token");
    let noted = async || store.tokens(None).await.expect("tokens")[0].last_used_at;
    let begin = store.clock.now();
    verified(store, &token.text).await.expect("it lives");
    while noted().await.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(noted().await, Some(begin));
    control.clock.advance_ms(LAST_USE_GRAIN_MS);
    verified(store, &token.text).await.expect("it lives");
    while noted().await == Some(begin) {
        tokio::task::yield_now().await;
    }
    assert_eq!(noted().await, Some(begin.plus_ms(LAST_USE_GRAIN_MS)));
}

async fn a_dead_token_is_listed_for_a_quarter_and_then_forgotten(on: Backend) {
    let control = Control::start(on).await;
    let tenant = id_of(&control.create(&acme()).await);
    let store = &control.store;
    let dead = store.issue_token(&Actor::Operator, tenant_admin(tenant)).await.expect("a token");
    let live = store.issue_token(&Actor::Operator, tenant_admin(tenant)).await.expect("a token");
    let id = &*dead.record.id;
    store.revoke_token(&Actor::Operator, Some(tenant), id).await.expect("revoked");
    control.clock.advance_ms(KEPT_DEAD_MS);
    store.forget_dead_tokens().await.expect("a run");
    assert_eq!(store.tokens(Some(tenant)).await.expect("tokens").len(), 2);
    control.clock.advance_ms(1);
    store.forget_dead_tokens().await.expect("a run");
    let left = store.tokens(Some(tenant)).await.expect("tokens");
    assert_eq!(left.iter().map(|token| &token.id).collect::<Vec<_>>(), [&live.record.id]);
}
