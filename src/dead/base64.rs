// SPDX-License-Identifier: MIT
//! Base64 (RFC 4648, with padding), so that `base64 -d` reads a record.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes`, encoded.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| chunk.get(n).copied().unwrap_or(0);
        let word = u32::from_be_bytes([0, byte(0), byte(1), byte(2)]);
        for (position, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = usize::try_from(word >> shift & 63).unwrap_or(0);
            let padding = position > chunk.len();
            out.push(if padding { b'=' } else { ALPHABET.get(digit).copied().unwrap_or(b'=') });
        }
    }
}

/// Decodes `text`; none unless it is what [`encode`] writes.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let chunks = text.chunks_exact(4);
    if !chunks.remainder().is_empty() {
        return None;
    }
    for chunk in chunks {
        let padding = chunk.iter().rev().take_while(|digit| **digit == b'=').count();
        let mut word = 0;
        for digit in chunk.iter().take(4 - padding.min(2)) {
            word = word << 6 | value(*digit)?;
        }
        word <<= 6 * padding.min(2);
        let [_, bytes @ ..] = word.to_be_bytes();
        out.extend_from_slice(bytes.get(..3 - padding.min(2))?);
    }
    Some(out)
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_vectors_of_the_rfc_come_out() {
        for (plain, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encoded(plain.as_bytes()), expected);
        }
        assert_eq!(decode(b"Zg="), None);
        assert_eq!(decode(b"Z*=="), None);
        assert_eq!(decode(b"===="), None);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(encoded(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let _either = decode(&text);
        }
    }
}
