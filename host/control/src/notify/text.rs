//! An event in words, for mail: a subject and a plain text.
//!
//! Invariant: nothing that a tenant chose (its names) brings a line break into a subject;
//! an event of a kind that this does not know is told as it is stored.

use serde_json::Value;

/// Longest part of a subject that a tenant chose, in characters.
const NAME_CHARS_MAX: usize = 80;

/// A mail's subject and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl Notice {
    /// The words for an event of `kind` about the tenant called `name`.
    pub(crate) fn of(kind: &str, payload: &Value, name: &str) -> Self {
        let name = flat(name);
        let told = match kind {
            "quota.warning" => quota("Warning", payload, &name),
            "quota.critical" => quota("Critical", payload, &name),
            _ => None,
        };
        told.unwrap_or_else(|| Self {
            subject: format!("[LeanVibe] {} ({name})", flat(kind)),
            text: format!("{kind}\n\n{payload:#}\n"),
        })
    }
}

fn quota(severity: &str, payload: &Value, name: &str) -> Option<Notice> {
    let figure = |member: &str| payload.get(member).filter(|figure| figure.is_number());
    let metric = payload.get("metric")?.as_str()?;
    let (used, limit) = (figure("used")?, figure("limit")?);
    let (percent, threshold) = (figure("percent")?, figure("threshold")?);
    let occurred_at = payload.get("occurred_at")?.as_str()?;
    let metric_name = metric.replace('_', " ");
    let period = match payload.pointer("/window/end").and_then(Value::as_str) {
        Some(end) => format!("The quota's current period ends at {end}."),
        None => "This quota is a level: it does not start anew by itself.".to_owned(),
    };
    Some(Notice {
        subject: format!(
            "[LeanVibe] {severity}: {name} has used {percent} % of its quota of {metric_name}"
        ),
        text: format!(
            "{name} has used {used} of {limit} {metric_name} ({percent} %), which reaches the \
             {} threshold of {threshold} %.\n\nSeen at {occurred_at}. {period}\n\n\
             Tenant: {}\nMetric: {metric}\n",
            severity.to_lowercase(),
            payload.get("tenant_id").and_then(Value::as_str).unwrap_or_default(),
        ),
    })
}

/// A chosen text without control characters, and not too long for a subject.
fn flat(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(NAME_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn payload() -> Value {
        json!({
            "tenant_id": "018cc251-f400-7000-8000-000000000000",
            "metric": "api_calls",
            "used": 8_050,
            "limit": 10_000,
            "percent": 80.5,
            "threshold": 80,
            "window": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
            "occurred_at": "2024-01-15T10:30:00Z",
        })
    }

    #[test]
    fn a_quota_event_is_told_with_its_figures() {
        let notice = Notice::of("quota.warning", &payload(), "Acme Corp");
        assert_eq!(
            notice.subject,
            "[LeanVibe] Warning: Acme Corp has used 80.5 % of its quota of api calls"
        );
        assert_eq!(
            notice.text,
            "Acme Corp has used 8050 of 10000 api calls (80.5 %), which reaches the warning \
             threshold of 80 %.\n\nSeen at 2024-01-15T10:30:00Z. The quota's current period \
             ends at 2024-02-01T00:00:00Z.\n\n\
             Tenant: 018cc251-f400-7000-8000-000000000000\nMetric: api_calls\n"
        );
    }

    #[test]
    fn an_event_of_another_kind_is_told_as_it_is() {
        let notice = Notice::of("tenant.plan_changed", &json!({"plan": "team"}), "Acme");
        assert_eq!(notice.subject, "[LeanVibe] tenant.plan_changed (Acme)");
        assert!(notice.text.contains("\"plan\": \"team\""), "{}", notice.text);
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_the_subject(name in any::<String>(), kind in any::<String>()) {
            for kind in [kind.as_str(), "quota.critical"] {
                let subject = Notice::of(kind, &payload(), &name).subject;
                prop_assert!(!subject.chars().any(char::is_control), "{subject:?}");
            }
        }
    }
}
