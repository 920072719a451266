//! What the values of fields must look like: pure, one rule a function.
//!
//! Invariant: a rule's refusal says what is allowed, so that a person can fix the field
//! without reading this.

use model::{
    anchor::Anchor,
    catalog::Catalog,
    clock::UnixMs,
    gdpr::ProcessingBasis,
    host::{Host, parse_authority},
    quota::Metric,
    tenant::{Slug, Status, SuspendReason, TenantId},
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::fields::Ruled;

/// Longest name of an organisation, in characters.
const NAME_CHARS_MAX: usize = 200;
/// Longest reason, in characters: a sentence or two, and the number of a ticket.
const REASON_CHARS_MAX: usize = 500;
/// Longest address that SMTP can carry (RFC 5321 4.5.3.1.3), in bytes.
const EMAIL_BYTES_MAX: usize = 254;
/// Longest name of an attribute or secret, in bytes.
const MEMBER_NAME_BYTES_MAX: usize = 64;
/// Longest value of an attribute, in bytes: policies get a copy per call.
const ATTRIBUTE_BYTES_MAX: usize = 1_024;
/// Longest value of a secret, in bytes: fits a PEM key.
const SECRET_BYTES_MAX: usize = 4_096;
/// Largest quota: what every database and JSON reader can hold.
const QUOTA_MAX: u64 = (1 << 53) - 1;

/// A text that every database can hold: PostgreSQL has no zero character.
pub(crate) fn text(value: &Value) -> Ruled<&str> {
    let text = value.as_str().ok_or_else(|| "must be a string".to_owned())?;
    if text.contains('\0') {
        return Err("may not hold the zero character (U+0000)".to_owned());
    }
    Ok(text)
}

/// Why something was done, for people.
pub(crate) fn reason(value: &Value) -> Ruled<String> {
    let reason = text(value)?.trim();
    if reason.is_empty() || reason.chars().count() > REASON_CHARS_MAX {
        return Err(format!("must have 1 to {REASON_CHARS_MAX} characters"));
    }
    if reason.chars().any(char::is_control) {
        return Err("may not hold control characters".to_owned());
    }
    Ok(reason.to_owned())
}

/// A whole number from `least` to `most`, as JSON or as the text of a query.
pub(crate) fn number(value: &Value, least: u64, most: u64) -> Ruled<u64> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

/// A name of an organisation.
pub(crate) fn name(value: &Value) -> Ruled<String> {
    let name = text(value)?.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(format!("must have 1 to {NAME_CHARS_MAX} characters"));
    }
    if name.chars().any(char::is_control) {
        return Err("may not hold control characters".to_owned());
    }
    Ok(name.to_owned())
}

pub(crate) fn slug(value: &Value) -> Ruled<Slug> {
    text(value)?.parse().map_err(|error: model::tenant::SlugError| error.to_string())
}

/// The shape of an address: what it takes to try a delivery.
pub(crate) fn email(value: &Value) -> Ruled<String> {
    let email = text(value)?;
    let well_formed = email.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !local.contains('@')
            && email.chars().all(|c| !c.is_control() && !c.is_whitespace())
            && matches!(parse_authority(domain), Ok(Host::Name(name)) if name.contains('.'))
            && !domain.contains(':')
    });
    if well_formed && email.len() <= EMAIL_BYTES_MAX {
        Ok(email.to_owned())
    } else {
        Err(format!("must be an e-mail address of at most {EMAIL_BYTES_MAX} bytes"))
    }
}

/// A declared plan; with `offered`, one that tenants may be offered.
pub(crate) fn plan(value: &Value, catalog: &Catalog, offered: bool) -> Ruled<String> {
    let plans = catalog.plans.values().filter(|plan| plan.offered || !offered);
    one_of(text(value)?, plans.map(|plan| plan.name.as_str()))
}

pub(crate) fn residency(value: &Value, catalog: &Catalog) -> Ruled<String> {
    one_of(text(value)?, catalog.groups.keys().map(String::as_str))
}

/// A region of a residency group.
pub(crate) fn region(value: &Value, group: &[String]) -> Ruled<String> {
    one_of(text(value)?, group.iter().map(String::as_str))
}

pub(crate) fn flag(value: &Value) -> Ruled<bool> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

pub(crate) fn processing_basis(value: &Value) -> Ruled<ProcessingBasis> {
    let names = ProcessingBasis::ALL.into_iter().map(ProcessingBasis::as_str);
    let name = one_of(text(value)?, names)?;
    ProcessingBasis::from_name(&name).ok_or_else(|| "is no basis".to_owned())
}

pub(crate) fn tenant_id(value: &Value) -> Ruled<TenantId> {
    text(value)?.parse().map_err(|_| "must be a tenant's UUID".to_owned())
}

/// A day of the month.
pub(crate) fn anchor(value: &Value) -> Ruled<Anchor> {
    let day = value.as_u64().and_then(|day| u8::try_from(day).ok());
    Anchor::on(day.unwrap_or(0)).map_err(|error| error.to_string())
}

pub(crate) fn status(value: &Value) -> Ruled<Status> {
    let status = one_of(text(value)?, Status::ALL.into_iter().map(Status::as_str))?;
    Status::from_name(&status).ok_or_else(|| "is no status".to_owned())
}

pub(crate) fn suspend_reason(value: &Value) -> Ruled<SuspendReason> {
    let reason = one_of(text(value)?, SuspendReason::ALL.into_iter().map(SuspendReason::as_str))?;
    SuspendReason::from_name(&reason).ok_or_else(|| "is no reason".to_owned())
}

/// An exact host of a tenant's own, in its canonical form. Names below the base domain
/// are slugs, so they cannot be given away here.
pub(crate) fn domain(value: &Value, base_domain: &str) -> Ruled<String> {
    let domain = text(value)?;
    let Ok(Host::Name(name)) = parse_authority(domain) else {
        return Err("must be a host name".to_owned());
    };
    let below =
        name.strip_suffix(base_domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if below {
        return Err(format!("may not lie in {base_domain}, where slugs name tenants"));
    }
    if domain.contains(':') || !name.contains('.') {
        return Err("must be a full host name without a port".to_owned());
    }
    Ok(name.into_owned())
}

/// A quota that replaces the plan's.
pub(crate) fn quota(name: &str, value: &Value) -> Ruled<u64> {
    let known = Metric::ALL.into_iter().map(Metric::quota_name);
    one_of(name, known).map_err(|detail| format!("is no quota; its name {detail}"))?;
    quota_value(value)
}

/// The metric of a quota's name.
pub(crate) fn quota_name(value: &Value) -> Ruled<Metric> {
    let name = one_of(text(value)?, Metric::ALL.into_iter().map(Metric::quota_name))?;
    let named = Metric::ALL.into_iter().find(|metric| metric.quota_name() == name);
    named.ok_or_else(|| "is no quota".to_owned())
}

pub(crate) fn quota_value(value: &Value) -> Ruled<u64> {
    value
        .as_u64()
        .filter(|quota| *quota <= QUOTA_MAX)
        .ok_or_else(|| format!("must be a whole number from 0 to {QUOTA_MAX}"))
}

pub(crate) fn attribute(name: &str, value: &Value) -> Ruled<String> {
    member(name, text(value)?, ATTRIBUTE_BYTES_MAX)
}

pub(crate) fn secret(name: &str, value: &Value) -> Ruled<model::secret::Secret> {
    member(name, text(value)?, SECRET_BYTES_MAX).map(model::secret::Secret::new)
}

fn member(name: &str, value: &str, most: usize) -> Ruled<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > MEMBER_NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(format!(
            "the name must be 1 to {MEMBER_NAME_BYTES_MAX} characters of a-z, A-Z, 0-9, '-', '_' and '.'"
        ));
    }
    if value.is_empty() || value.len() > most {
        return Err(format!("must have 1 to {most} bytes"));
    }
    Ok(value.to_owned())
}

/// An instant in RFC 3339, to the millisecond.
pub(crate) fn instant(value: &Value) -> Ruled<UnixMs> {
    OffsetDateTime::parse(text(value)?, &Rfc3339)
        .map(UnixMs::from_date_time)
        .map_err(|_| "must be a time like 2030-01-31T00:00:00Z".to_owned())
}

/// An instant after `now`.
pub(crate) fn future(value: &Value, now: UnixMs) -> Ruled<UnixMs> {
    let end = instant(value)?;
    if end > now { Ok(end) } else { Err("must lie in the future".to_owned()) }
}

fn one_of<'a>(text: &str, allowed: impl Iterator<Item = &'a str> + Clone) -> Ruled<String> {
    if allowed.clone().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let allowed: Vec<_> = allowed.collect();
    Err(format!("must be one of: {}", allowed.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_that_could_be_delivered_pass() {
        for good in ["admin@acme-corp.com", "a+b.c@x.example", "ü@bücher.example"] {
            assert_eq!(email(&json!(good)), Ok(good.to_owned()), "{good}");
        }
        let long = format!("a@{}.example", "b".repeat(250));
        for bad in [
            "",
            "a",
            "a@",
            "@b.example",
            "a b@c.example",
            "a@b@c.example",
            "a@b",
            "a@b.example:25",
            "a@[::1]",
            &long,
        ] {
            assert!(email(&json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_trimmed_and_bounded_in_characters() {
        assert_eq!(name(&json!(" Ü ")), Ok("Ü".to_owned()));
        assert!(name(&json!("ü".repeat(NAME_CHARS_MAX))).is_ok());
        assert!(name(&json!("ü".repeat(NAME_CHARS_MAX + 1))).is_err());
        assert!(name(&json!("a\u{7}b")).is_err());
    }

    #[test]
    fn no_text_holds_a_zero_character() {
        assert_eq!(text(&json!("a b")), Ok("a b"));
        let refused = text(&json!("a\u{0}b")).expect_err("a refusal");
        assert_eq!(refused, "may not hold the zero character (U+0000)");
        assert!(secret("key", &json!("a\u{0}b")).is_err());
        assert!(attribute("key", &json!("\u{0}")).is_err());
    }

    #[test]
    fn a_custom_domain_is_canonical_and_never_below_the_base_domain() {
        assert_eq!(
            domain(&json!("WWW.Shop.Example."), "edge.example"),
            Ok("www.shop.example".to_owned())
        );
        assert!(domain(&json!("notedge.example"), "edge.example").is_ok());
        for bad in
            ["edge.example", "EDGE.example.", "acme.edge.example", "shop", "1.2.3.4", "a.b:80", ""]
        {
            assert!(domain(&json!(bad), "edge.example").is_err(), "{bad}");
        }
    }

    #[test]
    fn quotas_are_known_whole_numbers_that_every_reader_can_hold() {
        assert_eq!(quota("max_users", &json!(0)), Ok(0));
        assert_eq!(quota("max_users", &json!(QUOTA_MAX)), Ok(QUOTA_MAX));
        for bad in [json!(QUOTA_MAX + 1), json!(-1), json!(1.5), json!("1"), json!(true)] {
            assert!(quota("max_users", &bad).is_err(), "{bad}");
        }
        assert!(quota("users", &json!(1)).is_err());
    }
}
