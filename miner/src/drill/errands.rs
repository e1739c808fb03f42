//! How a miner that computes nothing has others' answers fetched by a validator of its owner.
//!
//! Both see one folder. The miner leaves the image that came and waits; the validator opens a round with it, and
//! leaves the first answer that it gets. Writers rename whole files into place.

use std::io;
use std::path::{Path, PathBuf};

use perturb_types::Digest;

const ASKED: &str = "asked";
const ANSWERED: &str = "answered";

/// The folder.
#[derive(Clone, Debug)]
pub struct Errands {
    dir: PathBuf,
}

impl Errands {
    /// In a folder, which need not exist.
    ///
    /// # Errors
    /// The disk.
    pub fn open(dir: &Path) -> io::Result<Self> {
        for part in [ASKED, ANSWERED] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, part: &str, image: &Digest) -> PathBuf {
        self.dir.join(part).join(image.to_string())
    }

    fn leave(&self, part: &str, image: &Digest, png: &[u8]) -> io::Result<()> {
        let new = self.path(part, image).with_extension("new");
        std::fs::write(&new, png)?;
        std::fs::rename(new, self.path(part, image))
    }

    /// Leaves an image to be asked about.
    ///
    /// # Errors
    /// The disk.
    pub fn ask(&self, png: &[u8]) -> io::Result<()> {
        self.leave(ASKED, &Digest::of(png), png)
    }

    /// Somebody's answer to an image, if it has come.
    pub fn answer(&self, image: &Digest) -> Option<Vec<u8>> {
        std::fs::read(self.path(ANSWERED, image)).ok()
    }

    /// Takes an image to ask about: the newest, since the others' time is over.
    pub fn take(&self) -> Option<Vec<u8>> {
        let asked = std::fs::read_dir(self.dir.join(ASKED)).ok()?.flatten().filter(|e| e.path().extension().is_none());
        let newest = asked.max_by_key(|e| e.metadata().and_then(|m| m.modified()).ok())?.path();
        let png = std::fs::read(&newest).ok()?;
        std::fs::remove_file(newest).ok()?;
        Some(png)
    }

    /// Leaves an answer to an image.
    ///
    /// # Errors
    /// The disk.
    pub fn done(&self, image: &Digest, png: &[u8]) -> io::Result<()> {
        self.leave(ANSWERED, image, png)
    }

    /// How many answers were left.
    pub fn answered(&self) -> usize {
        std::fs::read_dir(self.dir.join(ANSWERED)).map_or(0, Iterator::count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_one_leaves_the_other_finds_once() {
        let dir = tempfile::tempdir().unwrap();
        let errands = Errands::open(dir.path()).unwrap();
        errands.ask(b"image").unwrap();
        assert_eq!(errands.take().unwrap(), b"image");
        assert_eq!(errands.take(), None);
        let image = Digest::of(b"image");
        assert_eq!(errands.answer(&image), None);
        errands.done(&image, b"answer").unwrap();
        assert_eq!((errands.answer(&image).unwrap(), errands.answered()), (b"answer".to_vec(), 1));
    }
}
