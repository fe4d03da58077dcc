// SPDX-License-Identifier: MIT
//! Parameters whose value is one word out of a few.

/// An enum that a configuration spells with a fixed word for each variant.
pub trait Choice: Copy + PartialEq + 'static {
    /// Each word with what it stands for, in the order in which they are listed to people.
    const WORDS: &'static [(&'static str, Self)];

    /// Returns the word for this variant.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }

    /// Returns the variant that `word` stands for.
    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
    }
}

/// Declares an enum and its words in one place, so that neither can be without the other.
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[$about])* $variant,)+ }

        impl $crate::config::choice::Choice for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];
        }
    };
}
pub(crate) use choice;
