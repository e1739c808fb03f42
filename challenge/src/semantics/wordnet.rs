//! Meaning by WordNet 3.0, embedded: the 1000 ImageNet classes and all that they are kinds of.
//!
//! Rule: two classes mean the same if they are one, if one is a kind of the other (at any distance),
//! or if both are direct kinds of one thing. By it a class has 2.24 others of its meaning on average;
//! a distance such as Wu and Palmer's groups more, and some far too widely.
//!
//! The graph is `data/imagenet.txt`, which `scripts/wordnet.py` makes from Debian's `wordnet-base`; it
//! carries WordNet's notice, as its licence asks. Class i of the usual classifiers is the i-th ImageNet
//! id in rising order, and an ImageNet id is a synset's offset in WordNet 3.0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use perturb_types::round::Meaning;

use super::{Semantics, SemanticsError};

const DATA: &str = include_str!("data/imagenet.txt");

/// Synsets by offset, with their direct hypernyms; some of them are classes.
#[derive(Debug, Default)]
pub struct Graph {
    parents: BTreeMap<u32, Vec<u32>>,
    /// Offset and words of each class, by rising offset.
    classes: Vec<(u32, String)>,
}

static GRAPH: LazyLock<Graph> = LazyLock::new(|| Graph::read(DATA));

/// The embedded graph.
#[must_use]
pub fn graph() -> &'static Graph {
    &GRAPH
}

impl Graph {
    /// Reads a graph; what is no line of one is passed over, which the tests exclude for the embedded.
    fn read(text: &str) -> Self {
        let mut graph = Self::default();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let (offsets, words) = line.split_once('\t').map_or((line, None), |(o, w)| (o, Some(w)));
            let mut offsets = offsets.split(' ').filter_map(|o| o.parse().ok());
            let Some(offset) = offsets.next() else { continue };
            graph.parents.insert(offset, offsets.collect());
            if let Some(words) = words {
                graph.classes.push((offset, words.to_owned()));
            }
        }
        graph
    }

    /// The words of every class, in order.
    #[must_use]
    pub fn class_names(&self) -> Vec<String> {
        self.classes.iter().map(|(_, words)| words.clone()).collect()
    }

    /// The ImageNet id of a class: `n` and eight digits.
    #[must_use]
    pub fn wnid(&self, class: u16) -> Option<String> {
        self.classes.get(usize::from(class)).map(|(offset, _)| format!("n{offset:08}"))
    }

    fn parents(&self, offset: u32) -> &[u32] {
        self.parents.get(&offset).map_or(&[], Vec::as_slice)
    }

    /// Whether `a` is `b` or a kind of it.
    fn is_a(&self, a: u32, b: u32) -> bool {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![a]);
        while let Some(offset) = waiting.pop() {
            if offset == b {
                return true;
            }
            if seen.insert(offset) {
                waiting.extend(self.parents(offset));
            }
        }
        false
    }

    /// The words of the classes nearest to one, at most `most`: those of the nearest thing that it and
    /// others are kinds of.
    #[must_use]
    pub fn beside(&self, class: u16, most: usize) -> Vec<&str> {
        let Some((offset, _)) = self.classes.get(usize::from(class)) else { return Vec::new() };
        let mut level = self.parents(*offset).to_vec();
        while !level.is_empty() {
            let kin = |other: u32| other != *offset && level.iter().any(|above| self.is_a(other, *above));
            let near: Vec<&str> =
                self.classes.iter().filter(|(other, _)| kin(*other)).take(most).map(|(_, w)| w.as_str()).collect();
            if !near.is_empty() {
                return near;
            }
            level = level.iter().flat_map(|above| self.parents(*above)).copied().collect();
        }
        Vec::new()
    }

    /// Whether two classes mean the same; none where one of them is no class.
    #[must_use]
    pub fn same(&self, a: u16, b: u16) -> Option<bool> {
        let (a, b) = (self.classes.get(usize::from(a))?.0, self.classes.get(usize::from(b))?.0);
        let siblings = || self.parents(a).iter().any(|p| self.parents(b).contains(p));
        Some(self.is_a(a, b) || self.is_a(b, a) || siblings())
    }
}

/// The judge.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wordnet;

impl Wordnet {
    /// Classes of the classifiers that it can judge: ImageNet's.
    pub const CLASSES: usize = 1000;
}

impl Semantics for Wordnet {
    fn name(&self) -> &str {
        "wordnet"
    }

    fn compare(&self, clean: u16, new: u16) -> Result<Meaning, SemanticsError> {
        match graph().same(clean, new) {
            Some(true) => Ok(Meaning::Same),
            Some(false) => Ok(Meaning::Different),
            None => Err(SemanticsError::Unknown(clean.max(new))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_embedded_graph_is_whole_and_carries_its_notice() {
        let g = graph();
        assert_eq!((g.parents.len(), g.parents.values().map(Vec::len).sum::<usize>()), (1860, 1937));
        assert_eq!(g.classes.len(), Wordnet::CLASSES);
        assert!(g.classes.is_sorted());
        assert!(g.parents.values().flatten().all(|p| g.parents.contains_key(p)), "every hypernym is there");
        let roots: Vec<_> = g.parents.iter().filter(|(_, p)| p.is_empty()).map(|(o, _)| *o).collect();
        assert_eq!(roots, [1740], "all are kinds of entity");
        assert_eq!((g.wnid(0).as_deref(), g.wnid(1000)), (Some("n01440764"), None));
        assert!(DATA.contains("WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved."));
    }

    #[test]
    fn breeds_of_one_kind_mean_the_same_and_a_fish_is_no_boat() {
        let said = |a, b| Wordnet.compare(a, b).unwrap();
        assert_eq!(said(0, 0), Meaning::Same);
        // Yawl and canoe are both small boats; tench and goldfish are both cyprinids.
        assert_eq!((said(914, 472), said(0, 1)), (Meaning::Same, Meaning::Same));
        assert_eq!((said(0, 780), said(1, 2)), (Meaning::Different, Meaning::Different));
        assert_eq!(Wordnet.compare(3, 1000), Err(SemanticsError::Unknown(1000)));
    }

    #[test]
    fn meaning_is_mutual_and_groups_two_and_a_quarter_others_a_class() {
        let mut others = 0u32;
        for a in 0..1000 {
            for b in 0..a {
                let same = graph().same(a, b).unwrap();
                assert_eq!(graph().same(b, a), Some(same));
                others += 2 * u32::from(same);
            }
        }
        assert_eq!(others, 2244);
    }

    #[test]
    fn a_kind_means_the_same_as_its_kinds_at_any_distance() {
        let g = Graph::read("# notice\n1\n2 1\ta thing\n3 2\n4 3\ta part, a piece\n5 1\tanother\n6\tnothing");
        assert_eq!((g.same(0, 1), g.same(1, 0)), (Some(true), Some(true)));
        assert_eq!(g.same(0, 2), Some(true), "both directly under the root");
        assert_eq!((g.same(1, 2), g.same(0, 3), g.same(0, 4)), (Some(false), Some(false), None));
    }

    #[test]
    fn beside_a_class_are_the_others_of_its_kind() {
        // Two cranes: a bird and a machine.
        let named = |class: usize| (graph().classes[class].1.as_str(), graph().beside(class as u16, 2));
        assert_eq!(named(134), ("crane", vec!["white stork, Ciconia ciconia", "black stork, Ciconia nigra"]));
        assert_eq!(named(517), ("crane", vec!["abacus", "accordion, piano accordion, squeeze box"]));
        assert_eq!(graph().beside(1000, 2), Vec::<&str>::new());
    }
}
