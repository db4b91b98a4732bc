//! Enums whose values are words of the file, and truth values.

use std::marker::PhantomData;

use crate::config::document::Document;
use crate::config::problem::ValueError;
use crate::config::reader::cursor::Cursor;
use crate::config::schema::{TypeInfo, ValueType, Word};
use crate::nearest;

use super::scalar::Scalar;

/// An enum whose values are words in the file.
pub(crate) trait ConfigEnum: Copy + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// Returns the word for this value.
    fn word(self) -> &'static str;

    /// Returns the meaning of the word, in whole sentences.
    fn meaning(self) -> &'static str;
}

/// Declares an enum with the word for each value. The doc comments are the sentences of the manual.
macro_rules! config_enum {
    (
        $(#[doc = $enum_doc:literal])+
        $visibility:vis enum $name:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[doc = $enum_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $name {
            $($(#[doc = $doc])+ $variant),+
        }

        $crate::config::types::config_words! {
            $name { $($(#[doc = $doc])+ $variant = $word),+ }
        }
    };
}

/// Gives the values of an enum their words.
macro_rules! config_words {
    ($name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal),+ $(,)? }) => {
        impl $crate::config::ConfigEnum for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii()),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad($crate::config::ConfigEnum::word(*self))
            }
        }
    };
}

pub(in crate::config) use {config_enum, config_words};

/// The type of an enum's words.
pub(in crate::config) struct WordOf<W>(PhantomData<W>);

/// Returns the type of an enum's words.
pub(in crate::config) fn word<W: ConfigEnum>() -> WordOf<W> {
    WordOf(PhantomData)
}

impl<W: ConfigEnum> Scalar for WordOf<W> {
    type Value = W;

    fn parse(&self, text: &str) -> Result<W, ValueError> {
        let words = W::ALL.iter().map(|value| value.word());
        W::ALL.iter().copied().find(|value| value.word() == text).ok_or_else(|| {
            let advice = nearest::nearest(text, words.clone()).map_or_else(
                || "choose one of them".into(),
                |candidate| format!("did you mean `{candidate}`?"),
            );
            ValueError::new(format!("one of {}", nearest::list(words)), advice)
        })
    }

    fn emit(&self, value: &W) -> Document {
        value.word().into()
    }

    fn describe(&self) -> TypeInfo {
        let words: Vec<&str> = W::ALL.iter().map(|value| value.word()).collect();
        let constraint = super::constraint::words(&words);
        let words = W::ALL.iter();
        TypeInfo {
            words: words
                .map(|value| Word { word: value.word(), meaning: value.meaning() })
                .collect(),
            ..TypeInfo::scalar("word", constraint)
        }
    }
}

/// The type of truth values.
pub(in crate::config) struct Boolean;

/// Returns the type of truth values.
pub(in crate::config) fn boolean() -> Boolean {
    Boolean
}

impl ValueType for Boolean {
    type Value = bool;

    fn read(&self, cursor: &Cursor<'_>) -> Option<bool> {
        cursor.bool()
    }

    fn emit(&self, value: &bool) -> Document {
        (*value).into()
    }

    fn describe(&self) -> TypeInfo {
        TypeInfo::scalar("boolean", super::constraint::truth_value())
    }
}
