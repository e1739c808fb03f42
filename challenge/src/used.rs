//! Which images of a set a validator has used in its present pass, and which one a number picks.
//!
//! A pass uses every image once; when all are used, the next pass begins. The images of a set are numbered;
//! a bit says that one is used. 4096 bits make a page of 512 bytes, and a small head counts the used ones of
//! each page, so that picking the n-th unused image reads the head and one page, and using it writes one of
//! each: 16 kB for 126,000 images, 150 kB for 1.2 million, never a row that grows with the set beyond two
//! bytes a page.

use std::collections::BTreeMap;
use std::convert::Infallible;

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::NetworkId;
use perturb_types::round::image_number;

/// Images of a set at most: the head of a pass stays under 8 kB.
pub const MAX_IMAGES: u64 = 16_000_000;

/// Images of a page.
pub const PAGE_IMAGES: u64 = 4096;

/// Bytes of a page.
const PAGE_BYTES: usize = (PAGE_IMAGES / 8) as usize;

/// The images used in one pass, by page.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Used {
    /// The pass, from 0.
    pub pass: u64,
    /// Images of the set.
    len: u64,
    /// Used images of each page.
    counts: Vec<u16>,
}

/// Where the pages of a pass are kept. A page that is not there is one of which nothing is used.
pub trait Pages {
    /// Why they cannot be read.
    type Error;

    /// Reads a page.
    ///
    /// # Errors
    /// It cannot be read.
    fn page(&self, page: u32) -> Result<Page, Self::Error>;

    /// Writes a page.
    fn put(&mut self, page: u32, images: Page);

    /// Forgets all pages.
    ///
    /// # Errors
    /// They cannot be read.
    fn clear(&mut self) -> Result<(), Self::Error>;
}

impl Pages for BTreeMap<u32, Page> {
    type Error = Infallible;

    fn page(&self, page: u32) -> Result<Page, Infallible> {
        Ok(self.get(&page).cloned().unwrap_or_default())
    }

    fn put(&mut self, page: u32, images: Page) {
        self.insert(page, images);
    }

    fn clear(&mut self) -> Result<(), Infallible> {
        Self::clear(self);
        Ok(())
    }
}

/// Where an image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Its page.
    page: u32,
    /// How many unused images of the page come before it.
    rank: u16,
}

impl Used {
    /// A first pass over a set of `len` images, none of them used.
    #[must_use]
    pub fn new(len: u64) -> Self {
        let pages = len.div_ceil(PAGE_IMAGES);
        Self { pass: 0, len, counts: vec![0; usize::try_from(pages).unwrap_or(usize::MAX)] }
    }

    /// Images that the pass has left.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.len - self.counts.iter().map(|c| u64::from(*c)).sum::<u64>().min(self.len)
    }

    /// Uses the image that a number picks, `number` modulo [`Used::remaining`] among the unused ones; where
    /// none is left the next pass begins. `None` where the set is empty, or head and pages contradict
    /// each other.
    ///
    /// # Errors
    /// A page cannot be read.
    pub fn draw<P: Pages>(&mut self, number: u64, pages: &mut P) -> Result<Option<u64>, P::Error> {
        if self.remaining() == 0 {
            *self = Self { pass: self.pass.wrapping_add(1), ..Self::new(self.len) };
            pages.clear()?;
        }
        let Some(place) = self.locate(number) else { return Ok(None) };
        let mut page = pages.page(place.page)?;
        let Some(bit) = page.take(place.rank) else { return Ok(None) };
        pages.put(place.page, page);
        if let Some(count) = self.counts.get_mut(place.page as usize) {
            *count = count.saturating_add(1);
        }
        Ok(Some(u64::from(place.page) * PAGE_IMAGES + u64::from(bit)))
    }

    /// Uses the next `count` images that a round's image lot of this value draws: their numbers in the set.
    /// `None` as with [`Used::draw`].
    ///
    /// # Errors
    /// A page cannot be read.
    pub fn draw_lot<P: Pages>(
        &mut self,
        network: &NetworkId,
        value: &[u8; 32],
        count: usize,
        pages: &mut P,
    ) -> Result<Option<Vec<u64>>, P::Error> {
        (0..count as u64).map(|attempt| self.draw(image_number(network, value, attempt), pages)).collect()
    }

    /// Where the unused image `number` modulo [`Used::remaining`] stands; `None` where the pass is over.
    fn locate(&self, number: u64) -> Option<Place> {
        let mut rank = number.checked_rem(self.remaining())?;
        for (page, used) in self.counts.iter().enumerate() {
            let unused = self.size(page as u32) - u64::from(*used);
            if rank < unused {
                return Some(Place { page: page as u32, rank: rank as u16 });
            }
            rank -= unused;
        }
        None
    }

    /// Images of a page: all but the last are full.
    fn size(&self, page: u32) -> u64 {
        (self.len - (u64::from(page) * PAGE_IMAGES).min(self.len)).min(PAGE_IMAGES)
    }
}

/// The images used of one page.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Page([u8; PAGE_BYTES]);

impl Default for Page {
    fn default() -> Self {
        Self([0; PAGE_BYTES])
    }
}

impl Page {
    fn is_used(&self, bit: u16) -> bool {
        self.0.get(usize::from(bit / 8)).is_none_or(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// Uses the unused image with `rank` unused ones before it; its number within the page.
    fn take(&mut self, rank: u16) -> Option<u16> {
        let mut unused = (0..PAGE_IMAGES as u16).filter(|bit| !self.is_used(*bit));
        let bit = unused.nth(usize::from(rank))?;
        drop(unused);
        let byte = self.0.get_mut(usize::from(bit / 8))?;
        *byte |= 1 << (bit % 8);
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn take(used: &mut Used, pages: &mut BTreeMap<u32, Page>, number: u64) -> Option<u64> {
        let Ok(index) = used.draw(number, pages);
        index
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_pass_uses_every_image_once(len in 1u64..9000, seed in any::<u64>()) {
            let (mut used, mut pages, mut seen) = (Used::new(len), BTreeMap::new(), BTreeSet::new());
            let mut number = seed;
            for left in (0..len).rev() {
                let image = take(&mut used, &mut pages, number).unwrap();
                prop_assert!(image < len && seen.insert(image), "image {} of {}", image, len);
                prop_assert_eq!((used.pass, used.remaining()), (0, left));
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            prop_assert_eq!(seen.len() as u64, len);
            prop_assert_eq!(take(&mut used, &mut pages, number), Some(number % len), "a new pass, nothing used");
            prop_assert_eq!((used.pass, used.remaining()), (1, len - 1));
        }
    }

    #[test]
    fn the_nth_unused_image_is_picked_by_number() {
        let (mut used, mut pages) = (Used::new(4100), BTreeMap::new());
        assert_eq!(take(&mut used, &mut pages, 4099), Some(4099));
        assert_eq!(take(&mut used, &mut pages, 4099), Some(0), "4099 modulo the 4099 that are left");
        assert_eq!(take(&mut used, &mut pages, 0), Some(1));
        assert_eq!(take(&mut used, &mut pages, 4096), Some(4098));
        assert_eq!(used.remaining(), 4096);
    }

    #[test]
    fn an_empty_set_has_nothing_to_pick_and_pages_that_contradict_the_head_give_nothing() {
        assert_eq!(take(&mut Used::new(0), &mut BTreeMap::new(), 5), None);
        let full = BTreeMap::from([(0, Page([255; PAGE_BYTES]))]);
        assert_eq!(take(&mut Used::new(100), &mut full.clone(), 5), None);
    }
}
