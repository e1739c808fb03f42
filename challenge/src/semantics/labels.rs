//! The names of a model's classes, and which class a data set's label is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::wordnet;
use crate::demo;

/// Names of classes; the position is the class. A name may list synonyms, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    names: Arc<[String]>,
    /// Classes that share their name with another, and what they are told apart by.
    shared: Arc<BTreeMap<u16, String>>,
}

/// Neighbours that a class is told apart by.
const BESIDE: usize = 2;

impl Labels {
    /// Names of classes, in order. Those of one name are told apart by their numbers.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self::told_by(names, |class| format!("class {class}"))
    }

    /// The demo classifier's ten.
    #[must_use]
    pub fn demo() -> Self {
        Self::new(demo::LABELS.map(str::to_owned).into())
    }

    /// ImageNet's thousand, by their WordNet synsets. Those of one name, the two cranes, are told apart by
    /// what lies beside them.
    #[must_use]
    pub fn imagenet() -> Self {
        let graph = wordnet::graph();
        Self::told_by(graph.class_names(), |class| format!("not far from: {}", graph.beside(class, BESIDE).join("; ")))
    }

    fn told_by(names: Vec<String>, by: impl Fn(u16) -> String) -> Self {
        let mut classes: BTreeMap<BTreeSet<String>, Vec<u16>> = BTreeMap::new();
        for (name, class) in names.iter().zip(0..=u16::MAX) {
            classes.entry(synonyms(name)).or_default().push(class);
        }
        let shared = classes.into_values().filter(|c| c.len() > 1).flatten();
        let told = shared.filter_map(|class| {
            let name = names.get(usize::from(class))?;
            Some((class, format!("{name} ({})", by(class))))
        });
        Self { shared: Arc::new(told.collect()), names: names.into() }
    }

    /// Number of classes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A class's name.
    #[must_use]
    pub fn get(&self, class: u16) -> Option<&str> {
        self.names.get(usize::from(class)).map(String::as_str)
    }

    /// A class's name, which no other class has: with what it is told apart by, where another has it too.
    #[must_use]
    pub fn told(&self, class: u16) -> Option<&str> {
        self.shared.get(&class).map(String::as_str).or_else(|| self.get(class))
    }

    /// Whether two classes have the same name: the same synonyms.
    #[must_use]
    pub fn one_name(&self, a: u16, b: u16) -> bool {
        let names = || Some(synonyms(self.get(a)?) == synonyms(self.get(b)?));
        self.shared.contains_key(&a) && self.shared.contains_key(&b) && names() == Some(true)
    }
}

/// Synonyms as they are compared: without case, `_` for a blank.
fn synonyms(name: &str) -> BTreeSet<String> {
    let words = name.split(',').map(|w| w.trim().replace('_', " ").to_lowercase());
    words.filter(|w| !w.is_empty()).collect()
}

/// For each label of a data set the model's class that it names, where exactly one is meant: the one
/// with the same synonyms, else the only one among whose synonyms the label's all are.
///
/// "crane" names two of ImageNet's classes, and so none.
#[must_use]
pub fn classes_of(names: &[String], labels: &Labels) -> Vec<Option<u16>> {
    let mut by_words: BTreeMap<BTreeSet<String>, Vec<u16>> = BTreeMap::new();
    let mut by_word: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for (class, name) in labels.names.iter().enumerate().take(usize::from(u16::MAX) + 1) {
        let words = synonyms(name);
        for word in &words {
            by_word.entry(word.clone()).or_default().insert(class as u16);
        }
        by_words.entry(words).or_default().push(class as u16);
    }
    let find = |name: &String| {
        let words = synonyms(name);
        match by_words.get(&words).map(Vec::as_slice) {
            Some([class]) => return Some(*class),
            Some(_) => return None,
            None => {}
        }
        let mut all: Option<BTreeSet<u16>> = None;
        for word in &words {
            let with = by_word.get(word)?;
            all = Some(all.map_or_else(|| with.clone(), |all| all.intersection(with).copied().collect()));
        }
        all.filter(|all| all.len() == 1)?.first().copied()
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_labels_of_data_sets_name_imagenets_classes() {
        let labels = Labels::imagenet();
        assert_eq!(
            (labels.len(), labels.get(0), labels.get(999)),
            (1000, Some("tench, Tinca tinca"), Some("toilet tissue, toilet paper, bathroom tissue"),)
        );
        let names = [
            "bonnet, poke bonnet",
            "Green_Mamba",
            "toilet paper",
            "crane",
            "maillot",
            "maillot, tank suit",
            "unicorn",
            "",
        ];
        let classes = classes_of(&names.map(str::to_owned), &labels);
        assert_eq!(classes, [Some(452), Some(64), Some(999), None, Some(638), Some(639), None, None]);
    }

    #[test]
    fn the_demo_sets_labels_are_the_demo_models_classes() {
        let names = demo::LABELS.map(str::to_owned);
        let classes = classes_of(&names, &Labels::demo());
        assert_eq!(classes, (0..10).map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn classes_of_one_name_are_told_apart() {
        let labels = Labels::new(["crane", "heron", "Crane "].map(str::to_owned).into());
        assert_eq!(labels.told(0), Some("crane (class 0)"));
        assert_eq!((labels.told(1), labels.told(3)), (Some("heron"), None));
        assert!(labels.one_name(0, 2) && !labels.one_name(0, 1));
        let labels = Labels::imagenet();
        assert_eq!(
            labels.told(134),
            Some("crane (not far from: white stork, Ciconia ciconia; black stork, Ciconia nigra)")
        );
        assert!(labels.one_name(134, 517) && labels.told(134) != labels.told(517));
        let alone = (0..1000).filter(|class| labels.told(*class) == labels.get(*class)).count();
        assert_eq!(alone, 998);
    }
}
