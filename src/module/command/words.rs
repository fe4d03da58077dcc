// SPDX-License-Identifier: MIT
//! Words that a person typed.

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    crate::event::names::nearest(word, known, 3)
}

/// What was typed, short enough to be repeated in an answer.
pub(super) fn shown(word: &str) -> String {
    const MAX: usize = 60;
    if word.chars().count() <= MAX {
        return word.to_owned();
    }
    word.chars().take(MAX).chain(['…']).collect()
}
