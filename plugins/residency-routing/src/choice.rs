//! The decision: which region, or why none.
//!
//! Runs per request. Reads only what the configuration needs, because every read is a
//! call out of the sandbox. Invariant: a data class with rules is never sent on without
//! an explicit region that all its rules allow.

use alloc::{borrow::ToOwned, string::String, vec::Vec};

use kit::problem::Problem;

use crate::config::{Config, DataClass, HeaderFrom, Outside};

/// What the policy reads of a request.
pub trait Request {
    /// The values of a header as they came, one per field line.
    fn header_values(&self, name: &str) -> Vec<Vec<u8>>;
    /// Takes a header off the forwarded request.
    fn delete_header(&self, name: &str) -> Result<(), String>;
    /// ISO 3166-1 alpha-2, upper case, when known.
    fn client_country(&self) -> Option<String>;
    /// Subject of the verified token.
    fn subject(&self) -> Option<String>;
    /// The tenant's regions, preferred first; empty means any.
    fn residency(&self) -> Vec<String>;
}

/// What to do with the request.
#[derive(Debug)]
pub enum Choice {
    /// Leave the region to the edge.
    Stay,
    /// Go to this region.
    Region(String),
    /// Answer with this.
    Refuse(Problem),
}

/// Decides.
///
/// # Errors
/// When the edge refused to drop the operators' header.
pub fn choose(config: &Config<'_>, request: &impl Request) -> Result<Choice, String> {
    let named = named_region(config, request)?;
    let country = || country_region(config, request);
    let default = || config.default_region.as_deref();
    if named.is_none() && config.countries.is_empty() && default().is_none() {
        // The usual case costs no look at the residency.
        if config.data_classes.is_empty() {
            return Ok(Choice::Stay);
        }
    }
    let classes = match data_classes(config, request) {
        Ok(classes) => classes,
        Err(refusal) => return Ok(Choice::Refuse(refusal)),
    };
    let group = Group(request.residency());
    let mut wish = None;
    for wanted in [named.as_deref(), country()].into_iter().flatten() {
        if group.has(wanted) {
            wish = Some(wanted);
            break;
        }
        if config.outside == Outside::Refuse {
            return Ok(Choice::Refuse(outside_refusal(wanted)));
        }
    }
    let wish = wish.or_else(|| default().filter(|region| group.has(region)));
    Ok(match (classes.is_empty(), wish) {
        (true, None) => Choice::Stay,
        (true, Some(region)) => Choice::Region(region.to_owned()),
        (false, wish) => for_classes(&classes, wish, &group),
    })
}

struct Group(Vec<String>);

impl Group {
    fn has(&self, region: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|member| member == region)
    }
}

/// The operators' wish. The header never reaches the backend, honoured or not.
fn named_region(config: &Config<'_>, request: &impl Request) -> Result<Option<String>, String> {
    let honoured = |subjects: &[_]| match request.subject() {
        Some(subject) => subjects.iter().any(|listed| *listed == *subject),
        None => false,
    };
    let named = match &config.region_header_from {
        HeaderFrom::Nobody => None,
        HeaderFrom::Anyone => named_once(config, request),
        HeaderFrom::Subjects(subjects) => {
            named_once(config, request).filter(|_| honoured(subjects))
        }
    };
    request.delete_header(&config.region_header)?;
    Ok(named)
}

/// A header that names two regions names none.
fn named_once(config: &Config<'_>, request: &impl Request) -> Option<String> {
    let mut values = request.header_values(&config.region_header);
    let value = if values.len() == 1 { values.pop() } else { None };
    value.and_then(|value| String::from_utf8(value).ok()).filter(|value| !value.is_empty())
}

fn country_region<'c>(config: &'c Config<'_>, request: &impl Request) -> Option<&'c str> {
    if config.countries.is_empty() {
        return None;
    }
    let country = request.client_country()?;
    config.countries.iter().find(|(code, _)| *code == *country).map(|(_, region)| &**region)
}

/// The classes of the request that have rules.
fn data_classes<'c, 'a>(
    config: &'c Config<'a>,
    request: &impl Request,
) -> Result<Vec<&'c DataClass<'a>>, Problem> {
    if config.data_classes.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for value in request.header_values(&config.data_class_header) {
        // A value that can't be read could name any class.
        let value = String::from_utf8(value)
            .map_err(|_| refusal("The data class of the request can't be read."))?;
        for name in value.split(',').map(|name| name.trim_matches([' ', '\t'])) {
            let listed = |class: &&DataClass<'_>| class.name.eq_ignore_ascii_case(name);
            found.extend(config.data_classes.iter().find(listed));
        }
    }
    Ok(found)
}

/// The wish if the classes allow it, else the first region that they and the group do.
fn for_classes(classes: &[&DataClass<'_>], wish: Option<&str>, group: &Group) -> Choice {
    let allowed = |region: &str| {
        classes.iter().all(|class| class.regions.iter().any(|listed| *listed == region))
    };
    // Without a group, the order of the first class decides.
    let listed = classes.first().map_or(&[][..], |class| &class.regions);
    let first_allowed = || {
        let members = group.0.iter().map(String::as_str);
        let listed = listed.iter().filter(|_| group.0.is_empty()).map(|region| &**region);
        members.chain(listed).find(|region| allowed(region))
    };
    match wish.filter(|region| allowed(region)).or_else(first_allowed) {
        Some(region) => Choice::Region(region.to_owned()),
        None => Choice::Refuse(
            refusal("No region of the tenant's residency group may process this data class.")
                .list("data_classes", classes.iter().map(|class| &*class.name))
                .list("regions", group.0.iter().map(String::as_str)),
        ),
    }
}

fn outside_refusal(region: &str) -> Problem {
    refusal("The region asked for is outside the tenant's residency group.").text("region", region)
}

fn refusal(detail: &str) -> Problem {
    Problem::new(403, "residency-refused", "Refused by data residency", detail)
}

#[cfg(test)]
mod tests;
