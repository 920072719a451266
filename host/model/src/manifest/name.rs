//! The names in a manifest: of the plugin, of its metrics, of the origins it calls.
//!
//! Invariant: a value of these types has the grammar of its kind, so that it can stand in
//! a path, a label or an allowlist as it is.

use std::{fmt, str::FromStr};

use http::Uri;
use serde::{Deserialize, Serialize};

/// Bytes of a plugin's name: it is a label of metrics and a part of file names.
const PLUGIN_NAME_BYTES_MAX: usize = 48;
/// Bytes of a metric's name, as at run time.
const METRIC_NAME_BYTES_MAX: usize = 64;

/// A value that has not the grammar of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Of a plugin.
    #[error(
        "is no plugin name: 1 to {PLUGIN_NAME_BYTES_MAX} of a-z, 0-9 and '-', a letter first, no '-' last"
    )]
    Plugin,
    /// Of a metric.
    #[error(
        "is no metric name: 1 to {METRIC_NAME_BYTES_MAX} of letters, digits and '_', no digit first"
    )]
    Metric,
    /// Of an origin.
    #[error("is no origin; write scheme and host, and a port if need be: https://api.example.com")]
    Origin,
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $error:expr, $holds:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let holds: fn(&str) -> bool = $holds;
                if holds(text) { Ok(Self(text.into())) } else { Err($error) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type!(
    /// Name of a plugin, unique within its owner: `geo-router`.
    PluginName,
    NameError::Plugin,
    is_plugin_name
);
text_type!(
    /// Name of a metric that a plugin writes.
    MetricName,
    NameError::Metric,
    is_metric_name
);
text_type!(
    /// An origin that a plugin calls: scheme, host, and the port unless it is the scheme's
    /// own; lower case. Not yet checked against any address range.
    Origin,
    NameError::Origin,
    is_origin
);

fn is_plugin_name(text: &str) -> bool {
    text.len() <= PLUGIN_NAME_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_metric_name(text: &str) -> bool {
    text.len() <= METRIC_NAME_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    // Spelled in one way only, so that comparing texts compares origins.
    let port = authority.port_u16();
    let own_port = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return false,
    };
    let host = authority.host();
    let spelled = match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    port != Some(own_port)
        && !host.is_empty()
        && spelled == text
        && !text.bytes().any(|b| b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_their_grammar() {
        for good in ["a", "geo-router", "x2", &"a".repeat(48)] {
            assert!(good.parse::<PluginName>().is_ok(), "{good}");
        }
        for bad in ["", "2x", "-a", "a-", "A", "a_b", "a/b", "..", &"a".repeat(49)] {
            assert_eq!(bad.parse::<PluginName>(), Err(NameError::Plugin), "{bad}");
        }
        assert!("greeted_total".parse::<MetricName>().is_ok());
        for bad in ["", "1st", "a-b", "a b", &"a".repeat(65)] {
            assert!(bad.parse::<MetricName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_has_one_spelling() {
        for good in ["https://api.example.com", "http://localhost:8081", "https://[2001:db8::1]"] {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        for bad in [
            "api.example.com",
            "https://",
            "https://API.example.com",
            "https://api.example.com/",
            "https://api.example.com:443",
            "https://api.example.com:",
            "https://user@api.example.com",
            "https://api.example.com/v1",
            "https://api.example.com?x",
            "ftp://api.example.com",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
