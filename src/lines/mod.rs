// SPDX-License-Identifier: MIT
//! Files of lines that a person reads with `less` or `jq` and that we trust after a crash.
//!
//! Each line is one JSON object whose last member, `crc`, is the CRC-32C in hexadecimal of
//! everything before it. So a line is whole or it isn't, whatever a power loss, a full disk or an
//! editor has done to the file, and one bad line costs only itself.

mod files;

pub use files::{Appended, Disk, Files};

#[cfg(test)]
pub(crate) use files::testing;

/// `,"crc":"` and what follows it up to the end of the object.
const HEAD: &[u8] = b",\"crc\":\"";
const DIGITS: usize = 8;
const TAIL: &[u8] = b"\"}";

/// Closes the JSON object that begins at `start` in `out` and lacks its closing brace: checksum,
/// brace, newline.
pub fn seal(out: &mut Vec<u8>, start: usize) {
    let digits = digits_of(out.get(start..).unwrap_or_default());
    out.extend_from_slice(HEAD);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(TAIL);
    out.push(b'\n');
}

/// Whether `line`, without its newline, is as [`seal`] left it.
pub fn is_whole(line: &[u8]) -> bool {
    let Some(split) = line.len().checked_sub(HEAD.len() + DIGITS + TAIL.len()) else {
        return false;
    };
    let (object, seal) = line.split_at_checked(split).unwrap_or_default();
    let digits = seal.strip_prefix(HEAD).and_then(|rest| rest.strip_suffix(TAIL));
    digits == Some(digits_of(object).as_bytes())
}

/// The checksum as it is written. It is compared so too: a digit that has become a capital is damage like any other.
fn digits_of(object: &[u8]) -> String {
    format!("{:08x}", crc_fast::crc32_iscsi(object))
}

/// How many leading bytes are lines with their newline. What follows was torn off by a crash.
pub fn terminated(bytes: &[u8]) -> usize {
    memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1)
}

/// The terminated lines, each without its newline: `Ok` when whole, `Err` when damaged.
pub fn split(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], &[u8]>> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\n")?;
        Some(if is_whole(line) { Ok(line) } else { Err(line) })
    })
}

/// A member of a line's JSON object, as text; empty when it isn't there.
pub fn text<'v>(object: &'v serde_json::Value, name: &str) -> &'v str {
    object.get(name).and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// A member of a line's JSON object, as a number; zero when it isn't there.
pub fn number(object: &serde_json::Value, name: &str) -> u64 {
    object.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default()
}

/// Appends `,"name":"value"`.
pub fn push_text(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(b',');
    crate::codec::json::write_string(name.as_bytes(), out);
    out.push(b':');
    crate::codec::json::write_string(value, out);
}

/// Appends `,"name":value`.
pub fn push_number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.push(b',');
    crate::codec::json::write_string(name.as_bytes(), out);
    out.push(b':');
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(object: &str) -> Vec<u8> {
        let mut line = object.as_bytes().to_vec();
        seal(&mut line, 0);
        line
    }

    #[test]
    fn a_sealed_line_is_json_and_any_changed_bit_shows() {
        let line = sealed("{\"id\":7");
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(number(&value, "id"), 7);
        let whole = line.strip_suffix(b"\n").unwrap();
        assert!(is_whole(whole));
        for at in 0..whole.len() * 8 {
            let mut changed = whole.to_vec();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(!is_whole(&changed), "bit {at}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_keeps_the_lines_before_the_cut() {
        let file = [sealed("{\"id\":1"), sealed("{\"id\":2"), sealed("{\"id\":3")].concat();
        for cut in 0..=file.len() {
            let kept = &file[..cut];
            let kept = &kept[..terminated(kept)];
            let whole = split(kept).flatten().count();
            assert_eq!(whole, cut * 3 / file.len());
            assert_eq!(split(kept).count(), whole);
        }
    }
}
