//! What the hub's `datasets` library writes about columns: a JSON text under `huggingface` in the
//! footer's key-value metadata.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::remote::cut;

/// Bytes of the text: a thousand classes with all their names need 40 kB.
const MAX_TEXT: usize = 1 << 20;

/// Bytes of a label's name.
pub(in crate::source) const MAX_NAME: usize = 512;

/// Which columns hold image and label, and the labels' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) image: String,
    pub(super) label: String,
    /// Empty where labels have no names; then they are not used.
    pub(super) names: Vec<String>,
}

impl Default for Features {
    fn default() -> Self {
        Self { image: "image".into(), label: "label".into(), names: Vec::new() }
    }
}

#[derive(Deserialize)]
struct Text {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    features: Map<String, Value>,
}

/// Whether a name can be told to people and models.
pub(in crate::source) fn fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

impl Features {
    /// Reads the text; without one the columns are `image` and `label`, and labels have no names.
    pub(super) fn read(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::default()) };
        if text.len() > MAX_TEXT {
            return Err(format!("{} bytes about its features, at most {MAX_TEXT} are accepted", text.len()));
        }
        let text: Text =
            serde_json::from_str(text).map_err(|e| format!("what it says about its features: {}", cut(e)))?;
        let of = |kind: &str| {
            let mut all =
                text.info.features.iter().filter(|(_, f)| f.get("_type").and_then(Value::as_str) == Some(kind));
            (all.next(), all.next().is_some())
        };
        let ((image, more_images), (label, more_labels)) = (of("Image"), of("ClassLabel"));
        if more_images {
            return Err("more than one column of images".into());
        }
        let mut features = Self::default();
        if let Some((name, _)) = image {
            features.image = name.clone();
        }
        // Several kinds of label: none is the one.
        if let (Some((name, label)), false) = (label, more_labels) {
            features.label = name.clone();
            let names = label.get("names").and_then(Value::as_array);
            let names = names.ok_or_else(|| format!("the labels of column `{name}` have no names"))?;
            if names.len() > usize::from(u16::MAX) {
                return Err(format!("{} label names, at most 65535 are possible", names.len()));
            }
            for name in names {
                match name.as_str() {
                    Some(name) if fits(name) => features.names.push(name.to_owned()),
                    _ => return Err(format!("label {} has no usable name", features.names.len())),
                }
            }
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn columns_and_names_are_read_as_the_hub_writes_them() {
        let text = r#"{"info": {"features": {"picture": {"_type": "Image"},
            "class": {"names": ["bonnet, poke bonnet", "green mamba"], "_type": "ClassLabel"}}}}"#;
        let f = Features::read(Some(text)).unwrap();
        assert_eq!((f.image.as_str(), f.label.as_str()), ("picture", "class"));
        assert_eq!(f.names, ["bonnet, poke bonnet", "green mamba"]);
        assert_eq!(Features::read(None).unwrap(), Features::default());
    }

    #[test]
    fn what_it_says_is_not_repeated_at_length() {
        let refused = Features::read(Some(&format!(r#"{{"info": "{}"}}"#, "x".repeat(1 << 16)))).unwrap_err();
        assert!(refused.contains("xxx") && refused.chars().count() < 300, "{} characters", refused.len());
    }

    #[test]
    fn a_text_that_makes_no_sense_is_refused_with_the_reason() {
        for (text, why) in [
            ("[", "features"),
            (r#"{"info": {"features": {"a": {"_type": "Image"}, "b": {"_type": "Image"}}}}"#, "more than one"),
            (r#"{"info": {"features": {"label": {"_type": "ClassLabel"}}}}"#, "have no names"),
            (r#"{"info": {"features": {"label": {"names": ["a", "\n"], "_type": "ClassLabel"}}}}"#, "label 1"),
        ] {
            let refused = Features::read(Some(text)).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
