//! What the edge does with a request when nobody can say whether its quota holds one more:
//! the lease is spent, and neither dispatcher nor authority answers.
//!
//! Declared per plan and metric as `on_authority_loss`; looked at by the meter then only.
//! Invariant: whatever is not declared is refused, and only `allow` leaves the promise of
//! exactness.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quota::Metric;

/// For one metric that is spent token by token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// 503 until somebody answers.
    #[default]
    Deny,
    /// Every edge keeps so many tokens of each window aside for this case; they are debited
    /// like any other token, so the quota stays exact.
    Overdraft(#[schemars(with = "u32", range(min = 1))] NonZeroU32),
    /// Admit without a token and count it: unlimited service for as long as it lasts.
    Allow,
}

/// For stored bytes, which nobody can keep aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnStorageLoss {
    /// 503 until somebody answers.
    #[default]
    Deny,
    /// Let the upload through and count it.
    Allow,
}

/// Per metric; what is absent is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnAuthorityLoss {
    /// Requests of the month.
    pub api_calls: OnLoss,
    /// AI requests of the day.
    pub ai_requests: OnLoss,
    /// Stored bytes.
    pub storage: OnStorageLoss,
}

impl OnAuthorityLoss {
    /// The rule of a consumable metric; the others are denied.
    #[must_use]
    pub const fn of(&self, metric: Metric) -> OnLoss {
        match metric {
            Metric::ApiCalls => self.api_calls,
            Metric::AiRequests => self.ai_requests,
            Metric::Storage | Metric::ConcurrentSessions | Metric::Users | Metric::Projects => {
                OnLoss::Deny
            }
        }
    }

    /// Whether nothing was declared.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<OnAuthorityLoss, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn each_metric_has_its_own_rule_and_deny_is_the_default() {
        let rules = read(json!({"api_calls": {"overdraft": 50}, "storage": "allow"}));
        let rules = rules.expect("rules");
        let fifty = NonZeroU32::new(50).expect("not zero");
        assert_eq!(rules.of(Metric::ApiCalls), OnLoss::Overdraft(fifty));
        assert_eq!(rules.of(Metric::AiRequests), OnLoss::Deny);
        assert_eq!(rules.storage, OnStorageLoss::Allow);
        assert_eq!(read(json!({})).expect("rules"), OnAuthorityLoss::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (value, part) in [
            (json!({"api_calls": "open"}), "unknown variant `open`"),
            (json!({"api_calls": {"overdraft": 0}}), "nonzero"),
            (json!({"storage": {"overdraft": 1}}), "unknown variant `overdraft`"),
            (json!({"users": "allow"}), "unknown field `users`"),
        ] {
            let error = read(value.clone()).expect_err("refused");
            assert!(error.contains(part), "{value}: {error}");
        }
    }
}
