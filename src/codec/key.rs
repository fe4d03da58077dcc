// SPDX-License-Identifier: MIT
//! Words of a routing key, encoded so that any header value is exactly one word.
//!
//! The encoding is the one that Kazoo's `kz_amqp_util:encode/1` and Kamailio's `kazoo_encode` use:
//! letters, digits and `-~_` stand for themselves, a space is `+`, every other byte is `%XX` in
//! upper case, and a value that is exactly `*` or `#` is kept. So no value can act as a wildcard
//! inside a key, and a dot never splits a word.

/// The longest routing key AMQP 0-9-1 can carry, in bytes (a short string).
pub const KEY_MAX: usize = 255;

/// Appends `value` to `out` as one word, as far as `out` may grow to `limit` bytes.
///
/// A word that does not fit is cut, never inside a `%XX`.
pub fn encode_word(value: &[u8], limit: usize, out: &mut Vec<u8>) {
    if matches!(value, b"*" | b"#") {
        if out.len() < limit {
            out.extend_from_slice(value);
        }
        return;
    }
    for &byte in value {
        let hex = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
        let escaped;
        let encoded: &[u8] = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'~' | b'_' => {
                std::slice::from_ref(&byte)
            }
            b' ' => b"+",
            _ => {
                escaped = [b'%', hex(byte >> 4), hex(byte & 15)];
                &escaped
            }
        };
        if out.len() + encoded.len() > limit {
            return;
        }
        out.extend_from_slice(encoded);
    }
}

/// Appends the words, a dot between them, within [`KEY_MAX`] bytes. An empty word becomes `_`.
///
/// Every word gets its place even when an earlier one is long: a binding counts words, so a key
/// must never lose one. The longest words give way first.
pub fn write_key(words: &[&[u8]], out: &mut Vec<u8>) {
    let base = out.len();
    for (position, word) in words.iter().enumerate() {
        if position > 0 {
            out.push(b'.');
        }
        // What the words still to come need at the least: a dot and one byte each, and for the
        // last two (a subclass, a UUID) the room they normally take.
        let ahead: usize = words
            .get(position + 1..)
            .unwrap_or_default()
            .iter()
            .map(|word| 1 + word.len().clamp(1, 36))
            .sum();
        let limit = base + KEY_MAX.saturating_sub(ahead);
        let start = out.len();
        encode_word(if word.is_empty() { b"_" } else { word }, limit, out);
        if out.len() == start {
            // The limit left no room: shorten rather than lose the word.
            out.push(b'_');
        }
    }
    out.truncate(base + KEY_MAX);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(value: &[u8]) -> String {
        let mut out = Vec::new();
        encode_word(value, KEY_MAX, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// What a consumer does to get the value back.
    fn decode(word: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut bytes = word.iter();
        while let Some(&byte) = bytes.next() {
            out.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let mut digit = || char::from(*bytes.next().unwrap()).to_digit(16).unwrap();
                    u8::try_from(digit() * 16 + digit()).unwrap()
                }
                byte => byte,
            });
        }
        out
    }

    #[test]
    fn the_known_vectors_come_out_as_kazoo_makes_them() {
        for (value, expected) in [
            ("a.b", "a%2Eb"),
            ("sip:1001@x y", "sip%3A1001%40x+y"),
            ("中", "%E4%B8%AD"),
            ("*", "*"),
            ("#", "#"),
            ("**", "%2A%2A"),
            ("", ""),
        ] {
            assert_eq!(word(value.as_bytes()), expected);
        }
    }

    #[test]
    fn a_long_value_is_cut_before_an_escape_and_not_inside_it() {
        let cut = word(&[b'.'; 300]);
        assert_eq!(cut.len(), 255);
        assert!(cut.ends_with("%2E"));
        let cut = word(&[[b'a'; 254].as_slice(), b"..."].concat());
        assert_eq!(cut.len(), 254);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_key_of_any_values_is_short_and_keeps_its_words(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 5)
        ) {
            let words: Vec<&[u8]> = values.iter().map(AsRef::as_ref).collect();
            let mut key = Vec::new();
            write_key(&words, &mut key);
            prop_assert!(key.len() <= KEY_MAX);
            let parts: Vec<&[u8]> = key.split(|byte| *byte == b'.').collect();
            prop_assert_eq!(parts.len(), 5);
            for (part, value) in parts.iter().zip(&values) {
                prop_assert!(!part.is_empty());
                let decoded = decode(part);
                let wanted: &[u8] = if value.is_empty() { b"_" } else { value };
                prop_assert!(wanted.starts_with(&decoded) || decoded == b"_", "{:?} is not the start of {:?}", decoded, wanted);
            }
        }
    }
}
