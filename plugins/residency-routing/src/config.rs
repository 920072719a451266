//! The configuration: see the table in the README.
//!
//! Read once per instance. Invariant: texts are borrowed from the configuration, which
//! lives as long as the instance.

use alloc::{borrow::Cow, vec::Vec};

use kit::{
    field,
    json::{Error, Json, Result},
};

/// Countries in a config. 300: there are 249 codes; bounds the search per request.
const COUNTRIES_MAX: usize = 300;

/// Who may name a region in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderFrom<'a> {
    /// No request: the header is dropped unread.
    Nobody,
    /// Every request of the tenant.
    Anyone,
    /// Requests whose verified token has one of these subjects.
    Subjects(Vec<Cow<'a, str>>),
}

/// What happens to a wish for a region outside the tenant's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// The next source is asked.
    Ignore,
    /// The request is refused.
    Refuse,
}

/// A class of data and where it may be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataClass<'a> {
    /// Compared without case.
    pub name: Cow<'a, str>,
    /// Never empty.
    pub regions: Vec<Cow<'a, str>>,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config<'a> {
    /// Header in which an operator names a region; never forwarded.
    pub region_header: Cow<'a, str>,
    /// Who may use it.
    pub region_header_from: HeaderFrom<'a>,
    /// Country (ISO 3166-1 alpha-2, upper case) to region.
    pub countries: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Region when nothing else chose one; without it the request stays where the edge
    /// would send it.
    pub default_region: Option<Cow<'a, str>>,
    /// About wishes outside the group.
    pub outside: Outside,
    /// Header that names the data classes of a request.
    pub data_class_header: Cow<'a, str>,
    /// The classes with rules.
    pub data_classes: Vec<DataClass<'a>>,
}

impl<'a> Config<'a> {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(text: &'a str) -> Result<Self> {
        let mut config = Self {
            region_header: Cow::Borrowed("x-region"),
            region_header_from: HeaderFrom::Nobody,
            countries: Vec::new(),
            default_region: None,
            outside: Outside::Ignore,
            data_class_header: Cow::Borrowed("x-data-class"),
            data_classes: Vec::new(),
        };
        Json::document(text, |key, json| {
            match &**key {
                "region_header" => config.region_header = field::writable_name(json)?,
                "region_header_from" => config.region_header_from = header_from(json)?,
                "countries" => config.countries = countries(json)?,
                "default_region" if json.null() => config.default_region = None,
                "default_region" => config.default_region = Some(region(json)?),
                "outside" => config.outside = outside(json)?,
                "data_class_header" => config.data_class_header = field::name(json)?,
                "data_classes" => config.data_classes = data_classes(json)?,
                _ => return Err(Error::unknown_key()),
            }
            Ok(())
        })?;
        Ok(config)
    }
}

fn header_from<'a>(json: &mut Json<'a>) -> Result<HeaderFrom<'a>> {
    if !json.is_string() {
        return json.array(Json::string).map(HeaderFrom::Subjects);
    }
    match &*json.string()? {
        "nobody" => Ok(HeaderFrom::Nobody),
        "anyone" => Ok(HeaderFrom::Anyone),
        _ => Err(Error::new("expected \"nobody\", \"anyone\" or a list of token subjects")),
    }
}

fn outside(json: &mut Json<'_>) -> Result<Outside> {
    match &*json.string()? {
        "ignore" => Ok(Outside::Ignore),
        "refuse" => Ok(Outside::Refuse),
        _ => Err(Error::new("expected \"ignore\" or \"refuse\"")),
    }
}

fn region<'a>(json: &mut Json<'a>) -> Result<Cow<'a, str>> {
    let region = json.string()?;
    if region.is_empty() { Err(Error::new("expected the name of a region")) } else { Ok(region) }
}

fn countries<'a>(json: &mut Json<'a>) -> Result<Vec<(Cow<'a, str>, Cow<'a, str>)>> {
    let mut countries = Vec::new();
    json.object(|country, json| {
        if country.len() != 2 || !country.bytes().all(|b| b.is_ascii_uppercase()) {
            return Err(Error::new("a country is two upper-case letters (ISO 3166-1 alpha-2)"));
        }
        if countries.len() == COUNTRIES_MAX {
            return Err(Error::new("too many countries"));
        }
        countries.push((country.clone(), region(json)?));
        Ok(())
    })?;
    Ok(countries)
}

fn data_classes<'a>(json: &mut Json<'a>) -> Result<Vec<DataClass<'a>>> {
    let mut classes = Vec::new();
    json.object(|name, json| {
        let regions = json.array(region)?;
        if regions.is_empty() {
            return Err(Error::new("a data class needs at least one region"));
        }
        classes.push(DataClass { name: name.clone(), regions });
        Ok(())
    })?;
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_config_stays_and_reads_no_header() {
        let config = Config::read("{}").expect("a config");
        assert_eq!(config.region_header_from, HeaderFrom::Nobody);
        assert_eq!((config.default_region, config.outside), (None, Outside::Ignore));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, want) in [
            (r#"{"region_header_form":"anyone"}"#, "region_header_form: unknown key"),
            (r#"{"region_header":"host"}"#, "region_header: is a header of the edge's own"),
            (r#"{"countries":{"de":"x"}}"#, "countries.de: a country is two upper-case letters"),
            (r#"{"countries":{"DE":1}}"#, "countries.DE: expected a string"),
            (r#"{"data_classes":{"h":[]}}"#, "data_classes.h: a data class needs at least one"),
            (r#"{"outside":"deny"}"#, "outside: expected \"ignore\" or \"refuse\""),
            (r#"{"region_header_from":["a",1]}"#, "region_header_from[1]: expected a string"),
        ] {
            let error = Config::read(text).expect_err(text).to_string();
            assert!(error.starts_with(want), "{error}");
        }
    }
}
