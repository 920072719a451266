//! What an evaluation answers: OpenFeature's evaluation details.
//!
//! Invariant: `error` is set exactly when the reason is [`Reason::Error`].

use serde_json::{Map, Value};

/// The type that the caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagKind {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A number without fraction.
    Integer,
    /// Any number.
    Float,
    /// A JSON object.
    Object,
    /// Whatever the flag holds.
    Any,
}

impl FlagKind {
    /// Whether a value is of this type.
    pub(super) fn admits(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
            Self::Integer => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Self::Float => value.is_number(),
            Self::Object => value.is_object(),
            Self::Any => true,
        }
    }
}

/// Why the value is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The flag has no targeting.
    Static,
    /// The targeting chose no variant.
    Default,
    /// The targeting chose the variant.
    TargetingMatch,
    /// The flag is switched off.
    Disabled,
    /// See the error.
    Error,
}

impl Reason {
    /// OpenFeature's name: `TARGETING_MATCH`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::Default => "DEFAULT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Disabled => "DISABLED",
            Self::Error => "ERROR",
        }
    }
}

/// The OpenFeature error codes that an evaluation inside the edge can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// No flag of that key.
    FlagNotFound,
    /// The targeting rule is broken.
    ParseError,
    /// The value is of another type than the caller's.
    TypeMismatch,
    /// Anything else: the targeting chose a variant that the flag lacks.
    General,
}

impl ErrorCode {
    /// OpenFeature's name: `FLAG_NOT_FOUND`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FlagNotFound => "FLAG_NOT_FOUND",
            Self::ParseError => "PARSE_ERROR",
            Self::TypeMismatch => "TYPE_MISMATCH",
            Self::General => "GENERAL",
        }
    }
}

/// The result of one evaluation, with the caller's default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The variant's value, or the caller's default.
    pub value: Value,
    /// Name of the variant; absent when the value is the caller's default.
    pub variant: Option<String>,
    /// Why.
    pub reason: Reason,
    /// Code and text for the developer.
    pub error: Option<(ErrorCode, String)>,
    /// Metadata of the flag over that of the flag set.
    pub metadata: Map<String, Value>,
}

/// The same, borrowed from the definitions.
#[derive(Debug)]
pub(crate) struct Verdict<'f> {
    /// The variant's value; absent when the caller's default holds.
    pub(crate) value: Option<&'f Value>,
    pub(crate) variant: Option<&'f str>,
    pub(crate) reason: Reason,
    pub(crate) error: Option<(ErrorCode, String)>,
    pub(crate) metadata: &'f Map<String, Value>,
}

impl<'f> Verdict<'f> {
    /// The caller's default, because of an error.
    pub(super) const fn error(
        code: ErrorCode,
        message: String,
        metadata: &'f Map<String, Value>,
    ) -> Self {
        let error = Some((code, message));
        Self { value: None, variant: None, reason: Reason::Error, error, metadata }
    }

    /// The caller's default, without an error.
    pub(super) const fn without_variant(reason: Reason, metadata: &'f Map<String, Value>) -> Self {
        Self { value: None, variant: None, reason, error: None, metadata }
    }

    /// All of it, and `default` where the flag has no value to give.
    pub(crate) fn with_default(self, default: &Value) -> Evaluation {
        Evaluation {
            value: self.value.unwrap_or(default).clone(),
            variant: self.variant.map(str::to_owned),
            reason: self.reason,
            error: self.error,
            metadata: self.metadata.clone(),
        }
    }
}
