//! Whether an RSA key is fit to verify signatures.
//!
//! Called once per key, when it is loaded. The verifier would refuse a weak key too, but
//! only token by token; an operator learns it here. Invariant: no RSA key is used that
//! this module has not passed.

use jsonwebtoken::{DecodingKey, DecodingKeyKind};

/// Bits of a modulus at least (2,048): RFC 7518 3.3.
const BITS_MIN: usize = 2_048;
/// Bits of a modulus at most (8,192): the verifier takes no more, and cost grows with the
/// square.
const BITS_MAX: usize = 8_192;

/// DER tags.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// Why the key is not used, if it is not.
pub(super) fn flaw(key: &DecodingKey) -> Option<String> {
    let components = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => Some((&n[..], &e[..])),
        DecodingKeyKind::SecretOrDer(der) => components(der),
    };
    let Some((modulus, exponent)) = components else {
        return Some("is no RSA public key".to_owned());
    };
    let bits = bits(modulus);
    if bits < BITS_MIN {
        return Some(format!("the RSA key has {bits} bits; at least {BITS_MIN} are needed"));
    }
    if bits > BITS_MAX {
        return Some(format!("the RSA key has {bits} bits; at most {BITS_MAX} are supported"));
    }
    let odd = exponent.last().is_some_and(|last| last & 1 == 1);
    (!odd || self::bits(exponent) < 2).then(|| "the RSA exponent is not odd and above 1".to_owned())
}

/// Length of a big-endian number without its leading zeros.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() - zeros) * 8 - first
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 A.1.1).
fn components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, _) = element(der, SEQUENCE)?;
    let (modulus, rest) = element(body, INTEGER)?;
    let (exponent, _) = element(rest, INTEGER)?;
    Some((modulus, exponent))
}

/// The content of a DER element of that tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ 0..0x80 => (short, rest),
        long => {
            let (digits, rest) =
                rest.split_at_checked(long & 0x7f).filter(|(d, _)| d.len() <= 4)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    (*found == tag).then(|| rest.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_key_shows_its_size() {
        let pem = include_bytes!("jwt/fixtures/rsa.pub.pem");
        let key = DecodingKey::from_rsa_pem(pem).expect("a key");
        assert_eq!(flaw(&key), None);
        let weak = include_bytes!("jwt/fixtures/rsa1024.pub.pem");
        let key = DecodingKey::from_rsa_pem(weak).expect("a key");
        assert!(flaw(&key).is_some_and(|flaw| flaw.contains("1024 bits")));
    }

    #[test]
    fn sizes_and_exponents_have_bounds() {
        let key = |bytes: usize, exponent: &[u8]| {
            let mut modulus = vec![0xff; bytes];
            modulus.insert(0, 0);
            DecodingKey::from_rsa_raw_components(&modulus, exponent)
        };
        assert_eq!(flaw(&key(256, &[1, 0, 1])), None);
        assert_eq!(flaw(&key(1_024, &[3])), None);
        for (bytes, exponent) in [
            (255, &[1, 0, 1][..]),
            (1_025, &[1, 0, 1]),
            (256, &[1]),
            (256, &[4]),
            (256, &[]),
            (0, &[3]),
        ] {
            assert!(flaw(&key(bytes, exponent)).is_some(), "{bytes} {exponent:?}");
        }
    }

    #[test]
    fn broken_der_has_no_components() {
        for der in
            [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 2, 2, 9], &[2, 0]]
        {
            assert_eq!(components(der), None, "{der:?}");
        }
    }
}
