//! Who judges whether two labels mean the same, as the network agreed on it.
//!
//! In borsh a tag: 0 nobody, 1 exact, 2 wordnet, 3 llm with the model's name. In JSON the text
//! `none`, `exact`, `wordnet` or `llm:MODEL`; `false` and `true` are read as `none` and `exact`.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Characters of a language model's name.
pub const MAX_LLM_NAME: usize = 64;

/// The language model of `llm` where none is named.
pub const DEFAULT_LLM: &str = "qwen2.5:1.5b-instruct";

/// Whether a flip must also be one of meaning, and who says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SemanticRule {
    /// Another label is enough.
    #[default]
    None,
    /// Labels mean the same if they are the same: any other label counts, as with `None`, but the
    /// record says so.
    Exact,
    /// By WordNet: the same if one is a kind of the other, or both are direct kinds of one thing.
    Wordnet,
    /// A language model is asked.
    Llm {
        /// Its name.
        model: String,
    },
}

impl SemanticRule {
    /// Whether the rules ask about meaning.
    #[must_use]
    pub const fn asked(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// The length of a language model's name that is none.
    pub(super) fn fault(&self) -> Option<u64> {
        let Self::Llm { model } = self else { return None };
        let fits = (1..=MAX_LLM_NAME).contains(&model.len()) && model.bytes().all(|b| b.is_ascii_graphic());
        (!fits).then_some(model.len() as u64)
    }

    /// The rule of a name: `none`, `exact`, `wordnet`, `llm` (the default model) or `llm:MODEL`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let rule = match name {
            "none" => Self::None,
            "exact" => Self::Exact,
            "wordnet" => Self::Wordnet,
            "llm" => Self::Llm { model: DEFAULT_LLM.to_owned() },
            other => Self::Llm { model: other.strip_prefix("llm:")?.to_owned() },
        };
        rule.fault().is_none().then_some(rule)
    }
}

impl fmt::Display for SemanticRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Exact => f.write_str("exact"),
            Self::Wordnet => f.write_str("wordnet"),
            Self::Llm { model } => write!(f, "llm:{model}"),
        }
    }
}

impl Serialize for SemanticRule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SemanticRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = SemanticRule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("none, exact, wordnet, llm or llm:MODEL")
            }

            fn visit_bool<E: de::Error>(self, asked: bool) -> Result<SemanticRule, E> {
                Ok(if asked { SemanticRule::Exact } else { SemanticRule::None })
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<SemanticRule, E> {
                SemanticRule::by_name(name).ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
            }
        }
        if from.is_human_readable() { from.deserialize_any(Name) } else { from.deserialize_str(Name) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_rule_has_one_name_and_one_encoding() {
        for (name, bytes) in [("none", &[0u8][..]), ("exact", &[1]), ("wordnet", &[2]), ("llm:a", &[3, 1, 0, 0, 0, 97])]
        {
            let rule = SemanticRule::by_name(name).unwrap();
            assert_eq!(rule.to_string(), name);
            assert_eq!(borsh::to_vec(&rule).unwrap(), bytes);
            assert_eq!(borsh::from_slice::<SemanticRule>(bytes).unwrap(), rule);
            let text = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<SemanticRule>(&text).unwrap(), rule);
        }
        assert_eq!(SemanticRule::by_name("llm").unwrap().to_string(), format!("llm:{DEFAULT_LLM}"));
    }

    #[test]
    fn the_older_yes_and_no_are_still_read() {
        assert_eq!(serde_json::from_str::<SemanticRule>("false").unwrap(), SemanticRule::None);
        assert_eq!(serde_json::from_str::<SemanticRule>("true").unwrap(), SemanticRule::Exact);
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for name in ["", "wordnet2", "llm:", "llm:two words", &format!("llm:{}", "x".repeat(65))] {
            assert_eq!(SemanticRule::by_name(name), None, "{name}");
        }
        let rules = crate::Rules { semantic: SemanticRule::Llm { model: String::new() }, ..crate::Rules::subnet() };
        assert_eq!(rules.validate().unwrap_err().field, "semantic");
    }
}
