//! `gdpr_settings` of a tenant: the product guide's document, changed member by member.
//!
//! Invariant: the hold of the law is the operator's: who may not change a tenant reads this
//! only. What is accepted is kept: consents by the policies, retention by the manager of the
//! tenants' data.

use model::gdpr::{GdprPatch, ProcessingBasis, RETENTION_DAYS_MAX};
use schemars::JsonSchema;
use serde_json::Value;

use crate::api::{fields::Fields, rules};

const SETTINGS: &str = "gdpr_settings";
const CONSENTS: &str = "consent_management";

/// What of the settings is changed; an absent member stays as it is.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the shape that `read` reads")]
pub(in crate::api) struct GdprBody {
    data_processing_basis: Option<ProcessingBasis>,
    /// After how many days the tenant's data goes.
    #[schemars(range(min = 1, max = 2_555))]
    retention_period_days: Option<u32>,
    /// Whether it goes by itself then.
    auto_deletion_enabled: Option<bool>,
    data_portability_enabled: Option<bool>,
    right_to_erasure_enabled: Option<bool>,
    /// While it is set nothing of the tenant's data is deleted.
    legal_hold: Option<bool>,
    consent_management: Option<ConsentsBody>,
}

/// Policies read these as the attributes `consent.analytics`, `consent.marketing` and
/// `consent.functional`.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the shape that `read` reads")]
struct ConsentsBody {
    analytics_consent: Option<bool>,
    marketing_consent: Option<bool>,
    functional_consent: Option<bool>,
}

/// The change that the document asks for, if it is there and right.
pub(super) fn read(fields: &mut Fields) -> Option<GdprPatch> {
    let mut inner = object(fields, SETTINGS)?;
    let days = |value: &Value| rules::number(value, 1, u64::from(RETENTION_DAYS_MAX));
    let mut patch = GdprPatch {
        data_processing_basis: inner.changed("data_processing_basis", rules::processing_basis),
        retention_period_days: inner
            .changed("retention_period_days", days)
            .and_then(|days| u32::try_from(days).ok()),
        auto_deletion_enabled: inner.changed("auto_deletion_enabled", rules::flag),
        data_portability_enabled: inner.changed("data_portability_enabled", rules::flag),
        right_to_erasure_enabled: inner.changed("right_to_erasure_enabled", rules::flag),
        legal_hold: inner.changed("legal_hold", rules::flag),
        ..GdprPatch::default()
    };
    if let Some(mut consents) = object(&mut inner, CONSENTS) {
        patch.analytics_consent = consents.changed("analytics_consent", rules::flag);
        patch.marketing_consent = consents.changed("marketing_consent", rules::flag);
        patch.functional_consent = consents.changed("functional_consent", rules::flag);
        inner.absorb(CONSENTS, consents);
    }
    fields.absorb(SETTINGS, inner);
    Some(patch)
}

fn object(fields: &mut Fields, name: &str) -> Option<Fields> {
    match fields.take(name)? {
        Value::Object(members) => Some(Fields::new(members)),
        _ => {
            fields.reject(name, "must be an object");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Backend, Control, acme, id_of, on_both, path_of};

    on_both![
        the_guides_document_is_what_a_new_tenant_has,
        a_member_is_changed_alone_and_is_in_the_directory_when_it_is_answered,
        all_bad_members_are_named_by_their_path_and_nothing_is_changed,
    ];

    async fn the_guides_document_is_what_a_new_tenant_has(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let guide = json!({
            "data_processing_basis": "contract",
            "retention_period_days": 2555,
            "auto_deletion_enabled": true,
            "data_portability_enabled": true,
            "right_to_erasure_enabled": true,
            "legal_hold": false,
            "consent_management": {
                "analytics_consent": false,
                "marketing_consent": false,
                "functional_consent": true
            }
        });
        assert_eq!(tenant["gdpr_settings"], guide);
        let again = control.patch(&tenant, &json!({"gdpr_settings": guide})).await;
        assert_eq!((again.status, &again.json), (200, &tenant), "nothing is new");
    }

    async fn a_member_is_changed_alone_and_is_in_the_directory_when_it_is_answered(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let patch = json!({"gdpr_settings": {
            "data_processing_basis": "legal_obligation",
            "retention_period_days": 30,
            "consent_management": {"analytics_consent": true}
        }});
        let answer = control.patch(&tenant, &patch).await;
        let mut expected = tenant["gdpr_settings"].clone();
        expected["data_processing_basis"] = "legal_obligation".into();
        expected["retention_period_days"] = 30.into();
        expected["consent_management"]["analytics_consent"] = true.into();
        assert_eq!((answer.status, &answer.json["gdpr_settings"]), (200, &expected));
        assert_eq!(control.get(&path_of(&tenant)).await.json["gdpr_settings"], expected);
        let published = control.store.published(id_of(&tenant)).expect("a tenant");
        assert_eq!(published.tenant.gdpr.attribute("consent.analytics"), Some("true"));
        let id = tenant["id"].as_str().expect("an id");
        let chain = control.get(&format!("/api/v1/tenants/{id}/audit")).await;
        let change = chain.json["items"][1]["detail"].as_str().expect("a detail");
        assert!(change.contains(r#"["gdpr","version"]"#), "{change}");
    }

    async fn all_bad_members_are_named_by_their_path_and_nothing_is_changed(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let patch = json!({"gdpr_settings": {
            "data_processing_basis": "because",
            "retention_period_days": 0,
            "auto_deletion_enabled": null,
            "legal_hold": "yes",
            "colour": "red",
            "consent_management": {"analytics_consent": 1, "cats": true},
            "data_portability_enabled": false
        }});
        let mut named = control.patch(&tenant, &patch).await;
        assert_eq!(named.status, 422);
        let mut bad = named.bad_fields();
        bad.sort_unstable();
        assert_eq!(
            bad,
            [
                "gdpr_settings.auto_deletion_enabled",
                "gdpr_settings.colour",
                "gdpr_settings.consent_management.analytics_consent",
                "gdpr_settings.consent_management.cats",
                "gdpr_settings.data_processing_basis",
                "gdpr_settings.legal_hold",
                "gdpr_settings.retention_period_days",
            ]
        );
        for whole in [json!(null), json!([]), json!({"retention_period_days": 2556})] {
            named = control.patch(&tenant, &json!({"gdpr_settings": whole})).await;
            assert_eq!(named.status, 422, "{whole}");
        }
        assert_eq!(control.get(&path_of(&tenant)).await.json, tenant);
    }
}
