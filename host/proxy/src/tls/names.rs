//! A map from host names to values, with wildcards of one label.
//!
//! Looked up once a handshake and once a request. Invariant: an exact name goes before a
//! wildcard, and `*.example.com` names neither `example.com` nor `a.b.example.com`
//! (RFC 9525 6.3).

use std::collections::HashMap;

/// The map. Names are lower case.
#[derive(Clone, Debug)]
pub(crate) struct Names<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows `*.`.
    below: HashMap<Box<str>, T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new() }
    }
}

impl<T> Names<T> {
    /// Enters a name or `*.name`, unless it is there; whether it was entered.
    pub(crate) fn add(&mut self, name: &str, value: T) -> bool {
        let name = name.to_ascii_lowercase();
        let (map, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.below, parent),
            None => (&mut self.exact, &*name),
        };
        if map.contains_key(name) {
            return false;
        }
        map.insert(name.into(), value);
        true
    }

    /// What a host is mapped to.
    pub(crate) fn find(&self, host: &str) -> Option<&T> {
        self.exact.get(host).or_else(|| {
            let (label, parent) = host.split_once('.')?;
            if label.is_empty() { None } else { self.below.get(parent) }
        })
    }

    /// Whether a host, or every host of `*.name`, is mapped.
    pub(crate) fn covers(&self, name: &str) -> bool {
        match name.strip_prefix("*.") {
            Some(parent) => self.below.contains_key(parent),
            None => self.find(name).is_some(),
        }
    }

    /// Whether it maps nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_names_one_label_and_an_exact_name_goes_first() {
        let mut names = Names::default();
        assert!(names.add("*.Example.com", 1));
        assert!(names.add("acme.example.com", 2));
        assert!(!names.add("acme.example.com", 3), "the first stays");
        assert!(names.covers("*.example.com") && names.covers("acme.example.com"));
        assert!(!names.covers("*.example.org") && !names.covers("example.com"));
        assert_eq!(names.find("beta.example.com"), Some(&1));
        assert_eq!(names.find("acme.example.com"), Some(&2));
        for other in ["example.com", "a.b.example.com", ".example.com", "example.org", ""] {
            assert_eq!(names.find(other), None, "{other}");
        }
    }
}
