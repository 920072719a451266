use proptest::prelude::*;
use serde_json::json;

use super::*;

fn threshold(percent: f64) -> Threshold {
    Threshold::try_from(percent).expect("a threshold")
}

fn settings(document: serde_json::Value) -> AlertSettings {
    serde_json::from_value(document).expect("settings")
}

#[test]
fn the_guides_document_comes_back_as_it_went_in() {
    let guide = json!({
        "quota_alerts": {
            "api_calls": {
                "warning_threshold": 80,
                "critical_threshold": 95,
                "notification_channels": ["email", "webhook"],
                "recipients": ["admin@company.com"]
            },
            "storage": {
                "warning_threshold": 85,
                "critical_threshold": 95.25,
                "auto_cleanup_enabled": false
            }
        }
    });
    assert_eq!(serde_json::to_value(settings(guide.clone())).expect("JSON"), guide);
}

#[test]
fn thresholds_have_at_most_two_decimals() {
    for percent in [0.01, 0.29, 1.15, 33.33, 80.0, 99.99, 100.0] {
        assert_eq!(f64::from(threshold(percent)), percent);
    }
    for percent in [0.0, -1.0, 0.001, 80.005, 100.01, f64::NAN, f64::INFINITY] {
        assert_eq!(Threshold::try_from(percent), Err(ThresholdError), "{percent}");
    }
}

#[test]
fn a_threshold_is_reached_exactly_at_its_share() {
    for (percent, used, limit, reached) in [
        (80.0, 79, 100, false),
        (80.0, 80, 100, true),
        (80.0, 8, 10, true),
        (80.0, 7, 9, false),
        (33.33, 3_333, 10_000, true),
        (33.34, 3_333, 10_000, false),
        (100.0, 99, 100, false),
        (100.0, u64::MAX, u64::MAX, true),
        // A quota of nothing is reached by anything.
        (80.0, 0, 0, false),
        (80.0, 1, 0, true),
        (0.01, 0, 100, false),
    ] {
        assert_eq!(threshold(percent).is_reached(used, limit), reached, "{percent} {used}/{limit}");
    }
}

#[test]
fn a_level_leaves_a_threshold_five_points_below_it() {
    for (percent, used, limit, left) in [
        (80.0, 75, 100, false),
        (80.0, 74, 100, true),
        (95.0, 90, 100, false),
        (95.0, 89, 100, true),
        // Half of a small one.
        (4.0, 2, 100, false),
        (4.0, 1, 100, true),
        (0.01, 0, 100, true),
        (80.0, 0, 0, true),
        (80.0, 1, 0, false),
    ] {
        assert_eq!(threshold(percent).is_left(used, limit), left, "{percent} {used}/{limit}");
    }
}

proptest! {
    #[test]
    fn no_usage_both_reaches_and_leaves(
        points in 1_u32..=10_000, used in any::<u64>(), limit in any::<u64>(),
    ) {
        let at = Threshold(points);
        prop_assert!(!(at.is_reached(used, limit) && at.is_left(used, limit)));
    }

    #[test]
    fn whoever_reaches_the_upper_one_reaches_the_lower_one(
        low in 1_u32..=10_000, high in 1_u32..=10_000, used in any::<u64>(), limit in any::<u64>(),
    ) {
        let [low, high] = [Threshold(low.min(high)), Threshold(low.max(high))];
        prop_assert!(!high.is_reached(used, limit) || low.is_reached(used, limit));
    }
}

fn addresses(targets: Vec<Target>) -> Vec<(Channel, Option<String>)> {
    targets.into_iter().map(|target| (target.channel, target.address)).collect()
}

#[test]
fn what_a_metric_does_not_say_is_inherited() {
    let settings = settings(json!({
        "quota_alerts": {
            "users": {},
            "storage": {"warning_threshold": 70, "notification_channels": ["webhook"]},
            "projects": {"recipients": ["p@a.example", "p@a.example"], "notification_channels": ["email"]},
            "api_calls": {"notification_channels": []}
        },
        "defaults": {
            "critical_threshold": 90,
            "notification_channels": ["webhook", "email"],
            "webhook_url": "https://a.example/hook"
        }
    }));
    let percents = |metric| settings.thresholds(metric).map(|both| both.map(f64::from));
    assert_eq!(percents(Metric::Users), Some([80.0, 90.0]));
    assert_eq!(percents(Metric::Storage), Some([70.0, 90.0]));
    assert_eq!(percents(Metric::AiRequests), None);
    let hook = (Channel::Webhook, Some("https://a.example/hook".to_owned()));
    let mail = |to: &str| (Channel::Email, Some(to.to_owned()));
    let told = |metric| addresses(settings.targets_of(metric, "admin@a.example"));
    assert_eq!(told(Metric::Storage), std::slice::from_ref(&hook));
    assert_eq!(told(Metric::Users), [mail("admin@a.example"), hook]);
    assert_eq!(told(Metric::Projects), [mail("p@a.example")]);
    assert_eq!(told(Metric::ApiCalls), []);
    assert_eq!(told(Metric::AiRequests), []);
    assert_eq!(addresses(settings.targets_of_tenant("admin@a.example")).len(), 2);
}

#[test]
fn without_anything_said_mail_goes_to_the_admin_and_the_tenants_own_events_to_nobody() {
    let settings = settings(json!({"quota_alerts": {"users": {}}, "defaults": {}}));
    let told = settings.targets_of(Metric::Users, "admin@a.example");
    assert_eq!(addresses(told), [(Channel::Email, Some("admin@a.example".to_owned()))]);
    assert_eq!(addresses(settings.targets_of_tenant("admin@a.example")), []);
    assert!(!settings.uses_webhooks());
}

#[test]
fn a_webhook_channel_without_a_url_is_known() {
    let settings = settings(json!({"quota_alerts": {
        "users": {"notification_channels": ["webhook"]},
        "storage": {"notification_channels": ["webhook"], "webhook_url": "https://a.example/"},
        "projects": {"notification_channels": ["email"]}
    }}));
    assert_eq!(settings.without_url(), [Metric::Users]);
    assert!(settings.uses_webhooks());
    let told = settings.targets_of(Metric::Users, "");
    assert_eq!(addresses(told), [(Channel::Webhook, None)]);
}
