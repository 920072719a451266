//! Whose plugins are taken: Ed25519 signatures of components, checked against the
//! operator's list of keys.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::plugin::Refusal;

/// Bytes of an Ed25519 public key.
const KEY_BYTES: usize = 32;

/// The signers that the operator knows.
#[derive(Clone, Debug, Default)]
pub struct Signers {
    keys: Vec<Vec<u8>>,
    required: bool,
}

/// Why the list is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignersError {
    /// A key that is none.
    #[error("item {0} is no Ed25519 public key: 32 bytes in base64")]
    Key(usize),
    /// Nobody could ever upload.
    #[error("needs at least one key in public_keys")]
    NoKey,
}

impl Signers {
    /// The signers of these keys, in base64.
    ///
    /// # Errors
    /// The first that is none; or none where a signature is required.
    pub fn new(keys: &[String], required: bool) -> Result<Self, SignersError> {
        let decode = |(at, key): (usize, &String)| {
            let bytes = STANDARD.decode(key.trim()).ok().filter(|key| key.len() == KEY_BYTES);
            bytes.ok_or(SignersError::Key(at))
        };
        let keys: Vec<_> = keys.iter().enumerate().map(decode).collect::<Result<_, _>>()?;
        if required && keys.is_empty() {
            return Err(SignersError::NoKey);
        }
        Ok(Self { keys, required })
    }

    /// Checks what came with a component.
    pub(super) fn check(&self, component: &[u8], signature: Option<&[u8]>) -> Result<(), Refusal> {
        let Some(signature) = signature else {
            if !self.required {
                return Ok(());
            }
            let detail = "This edge takes signed plugins only: send the Ed25519 signature of the \
                          component, in base64, as the part `signature`.";
            return Err(Refusal::new("plugin-unsigned", detail));
        };
        let by = |key: &Vec<u8>| UnparsedPublicKey::new(&ED25519, key).verify(component, signature);
        if self.keys.iter().any(|key| by(key).is_ok()) {
            return Ok(());
        }
        let detail = "The signature is by none of the operator's keys, or of another file.";
        Err(Refusal::new("plugin-bad-signature", detail))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn a_component_counts_as_signed_by_a_listed_key_only() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key pair");
        let key = STANDARD.encode(pair.public_key().as_ref());
        let signers = Signers::new(&[key], true).expect("signers");
        let signature = pair.sign(b"component");
        assert_eq!(signers.check(b"component", Some(signature.as_ref())), Ok(()));
        let code = |checked: Result<(), Refusal>| checked.expect_err("refused").code;
        let forged = signers.check(b"another", Some(signature.as_ref()));
        assert_eq!(code(forged), "plugin-bad-signature");
        assert_eq!(code(signers.check(b"component", None)), "plugin-unsigned");
        assert_eq!(Signers::default().check(b"component", None), Ok(()));
        assert_eq!(Signers::new(&["x".into()], false).expect_err("none"), SignersError::Key(0));
        assert_eq!(Signers::new(&[], true).expect_err("none"), SignersError::NoKey);
    }
}
