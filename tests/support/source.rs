// SPDX-License-Identifier: MIT
//! Rust sources as a row of words, for tests about sources.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a helper of a test fails by panicking"
)]

/// A word of a source: a name, `::`, or any other character alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<'t> {
    pub(crate) text: &'t str,
    pub(crate) start: usize,
}

/// Returns `text` with spaces in the place of comments, texts and characters. Line ends stay.
pub(crate) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let Some(end) = end_of_hidden(text, at) else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("only whole characters were replaced")
}

/// Returns where the comment, text or character ends that begins at `at`, if one does.
fn end_of_hidden(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    let find = |pattern: &str, from: usize| {
        let found = text.get(from..).and_then(|rest| rest.find(pattern));
        found.map_or(bytes.len(), |offset| from + offset)
    };
    if rest.starts_with(b"//") {
        return Some(find("\n", at));
    }
    if rest.starts_with(b"/*") {
        let (mut depth, mut end) = (1, at + 2);
        while depth > 0 && end < bytes.len() {
            match &bytes[end..] {
                [b'/', b'*', ..] => (depth, end) = (depth + 1, end + 2),
                [b'*', b'/', ..] => (depth, end) = (depth - 1, end + 2),
                _ => end += 1,
            }
        }
        return Some(end);
    }
    let follows_name = at > 0 && is_name_byte(bytes[at - 1]);
    let prefix = rest.iter().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
    let (is_raw, prefix) = match (follows_name, prefix) {
        (false, 1 | 2) if matches!(rest.get(prefix), Some(b'"' | b'#')) => {
            (rest[prefix - 1] == b'r', prefix)
        }
        _ => (false, 0),
    };
    if is_raw {
        let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(prefix + hashes) != Some(&b'"') {
            return None;
        }
        let close = format!("\"{}", "#".repeat(hashes));
        return Some((find(&close, at + prefix + hashes + 1) + close.len()).min(bytes.len()));
    }
    match rest.get(prefix) {
        Some(b'"') => Some(end_of_quoted(bytes, at + prefix + 1, b'"')),
        // A character, unless it is a lifetime: those have no second quote behind one letter.
        Some(b'\'') if rest.get(1) == Some(&b'\\') => Some(end_of_quoted(bytes, at + 1, b'\'')),
        Some(b'\'') => {
            let letter = text[at + 1..].chars().next()?;
            let end = at + 1 + letter.len_utf8();
            (bytes.get(end) == Some(&b'\'')).then_some(end + 1)
        }
        _ => None,
    }
}

fn end_of_quoted(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Returns the words of what [`code`] returned.
pub(crate) fn words(code: &str) -> Vec<Word<'_>> {
    let bytes = code.as_bytes();
    let mut words = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let end = match &bytes[start..] {
            [b':', b':', ..] => start + 2,
            [byte, ..] if is_name_byte(*byte) => {
                start + bytes[start..].iter().take_while(|byte| is_name_byte(**byte)).count()
            }
            _ => start + code[start..].chars().next().map_or(1, char::len_utf8),
        };
        let text = &code[start..end];
        if !text.trim().is_empty() {
            words.push(Word { text, start });
        }
        start = end;
    }
    words
}

/// Returns the number of the line in which the byte `at` is.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

#[test]
fn comments_and_texts_are_no_code() {
    let text = r##"a /* b /* c */ d */ e // f
'g' '\'' &'h b"i\"" r#"j"k"# c"l" br"m" 'é' n"##;
    let text = code(text);
    let words: Vec<&str> = words(&text).iter().map(|word| word.text).collect();
    assert_eq!(words, ["a", "e", "&", "'", "h", "n"]);
}
