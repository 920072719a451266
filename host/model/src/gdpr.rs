//! What holds for the personal data of a tenant: the product guide's `gdpr_settings`.
//!
//! Kept with the tenant and changed member by member. Policies read the consents as
//! attributes; retention is kept by the manager of the tenants' data. Invariant: a legal hold
//! outweighs every retention: nothing is deleted while it stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest retention, and the one that a tenant has unless it says otherwise, in days:
/// the product guide's seven years. Beyond it data goes for all tenants, month by month.
pub const RETENTION_DAYS_MAX: u32 = 2_555;

/// Why personal data may be processed: the six of Article 6 (1) GDPR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessingBasis {
    /// The person agreed.
    Consent,
    /// A contract with the person needs it.
    #[default]
    Contract,
    /// A law asks for it.
    LegalObligation,
    /// Somebody's life depends on it.
    VitalInterests,
    /// A public task.
    PublicTask,
    /// An interest that weighs more than the person's.
    LegitimateInterests,
}

impl ProcessingBasis {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Consent,
        Self::Contract,
        Self::LegalObligation,
        Self::VitalInterests,
        Self::PublicTask,
        Self::LegitimateInterests,
    ];

    /// The stable name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consent => "consent",
            Self::Contract => "contract",
            Self::LegalObligation => "legal_obligation",
            Self::VitalInterests => "vital_interests",
            Self::PublicTask => "public_task",
            Self::LegitimateInterests => "legitimate_interests",
        }
    }

    /// The basis of a name made by [`ProcessingBasis::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|basis| basis.as_str() == name)
    }
}

/// What people agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Consents {
    /// Being measured.
    pub analytics_consent: bool,
    /// Being advertised to.
    pub marketing_consent: bool,
    /// What the service itself needs.
    pub functional_consent: bool,
}

impl Default for Consents {
    fn default() -> Self {
        Self { analytics_consent: false, marketing_consent: false, functional_consent: true }
    }
}

/// The settings of a tenant; what was never set is as in the product guide's example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GdprSettings {
    /// Why personal data may be processed.
    pub data_processing_basis: ProcessingBasis,
    /// After how many days data goes, from 1 to [`RETENTION_DAYS_MAX`].
    pub retention_period_days: u32,
    /// Whether it goes by itself then; if not, after [`RETENTION_DAYS_MAX`].
    pub auto_deletion_enabled: bool,
    /// Whether data may be exported.
    pub data_portability_enabled: bool,
    /// Whether data may be erased on request.
    pub right_to_erasure_enabled: bool,
    /// Nothing is deleted while this is so; the operator's alone to set.
    pub legal_hold: bool,
    /// What people agreed to.
    pub consent_management: Consents,
}

impl Default for GdprSettings {
    fn default() -> Self {
        Self {
            data_processing_basis: ProcessingBasis::default(),
            retention_period_days: RETENTION_DAYS_MAX,
            auto_deletion_enabled: true,
            data_portability_enabled: true,
            right_to_erasure_enabled: true,
            legal_hold: false,
            consent_management: Consents::default(),
        }
    }
}

impl GdprSettings {
    /// The retention that it has set itself.
    #[must_use]
    pub fn own_retention_days(&self) -> Option<u32> {
        self.auto_deletion_enabled.then_some(self.retention_period_days)
    }

    /// After how many days the tenant's data goes where the installation keeps it for
    /// `installation` days; `None` while it is held.
    #[must_use]
    pub fn retention_days(&self, installation: u32) -> Option<u32> {
        if self.legal_hold {
            return None;
        }
        Some(self.own_retention_days().map_or(installation, |own| own.min(installation)))
    }

    /// A consent by the name of the attribute that policies read it as, `consent.analytics`
    /// for example; `None` for any other name.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'static str> {
        let consents = &self.consent_management;
        let given = match name {
            "consent.analytics" => consents.analytics_consent,
            "consent.marketing" => consents.marketing_consent,
            "consent.functional" => consents.functional_consent,
            _ => return None,
        };
        Some(if given { "true" } else { "false" })
    }
}

/// A change of [`GdprSettings`]; an absent member stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GdprPatch {
    /// Of the member of this name, as are the others.
    pub data_processing_basis: Option<ProcessingBasis>,
    /// Within bounds already.
    pub retention_period_days: Option<u32>,
    #[expect(missing_docs, reason = "as above")]
    pub auto_deletion_enabled: Option<bool>,
    #[expect(missing_docs, reason = "as above")]
    pub data_portability_enabled: Option<bool>,
    #[expect(missing_docs, reason = "as above")]
    pub right_to_erasure_enabled: Option<bool>,
    #[expect(missing_docs, reason = "as above")]
    pub legal_hold: Option<bool>,
    #[expect(missing_docs, reason = "as above")]
    pub analytics_consent: Option<bool>,
    #[expect(missing_docs, reason = "as above")]
    pub marketing_consent: Option<bool>,
    #[expect(missing_docs, reason = "as above")]
    pub functional_consent: Option<bool>,
}

impl GdprPatch {
    /// Changes what it names.
    pub fn apply(self, settings: &mut GdprSettings) {
        let consents = &mut settings.consent_management;
        set(&mut settings.data_processing_basis, self.data_processing_basis);
        set(&mut settings.retention_period_days, self.retention_period_days);
        set(&mut settings.auto_deletion_enabled, self.auto_deletion_enabled);
        set(&mut settings.data_portability_enabled, self.data_portability_enabled);
        set(&mut settings.right_to_erasure_enabled, self.right_to_erasure_enabled);
        set(&mut settings.legal_hold, self.legal_hold);
        set(&mut consents.analytics_consent, self.analytics_consent);
        set(&mut consents.marketing_consent, self.marketing_consent);
        set(&mut consents.functional_consent, self.functional_consent);
    }
}

fn set<T>(member: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *member = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_down_is_as_in_the_guides_example() {
        let settings: GdprSettings = serde_json::from_str("{}").expect("settings");
        assert_eq!(settings, GdprSettings::default());
        let guide = r#"{"data_processing_basis":"contract","retention_period_days":2555,
            "auto_deletion_enabled":true,"data_portability_enabled":true,
            "right_to_erasure_enabled":true,"consent_management":{"analytics_consent":false,
            "marketing_consent":false,"functional_consent":true}}"#;
        assert_eq!(serde_json::from_str::<GdprSettings>(guide).expect("settings"), settings);
    }

    #[test]
    fn a_basis_has_one_name() {
        for basis in ProcessingBasis::ALL {
            assert_eq!(serde_json::to_value(basis).expect("JSON"), basis.as_str());
            assert_eq!(ProcessingBasis::from_name(basis.as_str()), Some(basis));
        }
    }

    #[test]
    fn retention_is_the_shorter_one_unless_deletion_is_off_or_held() {
        let mut settings = GdprSettings { retention_period_days: 30, ..GdprSettings::default() };
        assert_eq!(settings.retention_days(40), Some(30));
        assert_eq!(settings.retention_days(20), Some(20));
        settings.auto_deletion_enabled = false;
        assert_eq!(settings.retention_days(40), Some(40));
        settings.legal_hold = true;
        assert_eq!(settings.retention_days(40), None);
    }

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let mut settings = GdprSettings::default();
        let patch = GdprPatch {
            analytics_consent: Some(true),
            retention_period_days: Some(7),
            ..GdprPatch::default()
        };
        patch.apply(&mut settings);
        let mut expected = GdprSettings::default();
        expected.consent_management.analytics_consent = true;
        expected.retention_period_days = 7;
        assert_eq!(settings, expected);
        assert_eq!(settings.attribute("consent.analytics"), Some("true"));
        assert_eq!(settings.attribute("consent.marketing"), Some("false"));
        assert_eq!(settings.attribute("tier"), None);
    }
}
