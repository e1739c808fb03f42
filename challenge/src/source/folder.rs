//! The PNG files of a folder, in the order of their names.
//!
//! Fingerprint: for each file its name and the SHA-256 of its bytes. Every file is read once when the
//! set is opened; one that changes afterwards is refused when it is drawn.

use std::path::{Path, PathBuf};

use perturb_types::Digest;
use sha2::{Digest as _, Sha256};

use super::{ImageSource, SourceError, SourceImage};
use crate::file;
use crate::pixels::{DecodeError, Pixels, PngLimits};
use crate::used::MAX_IMAGES;

/// A folder of PNG files.
#[derive(Debug)]
pub struct FolderSource {
    files: Vec<(PathBuf, Digest)>,
    fingerprint: Digest,
    limits: PngLimits,
}

fn read(path: &Path, limits: &PngLimits) -> Result<Vec<u8>, SourceError> {
    file::read(path, limits.max_bytes as u64).map_err(|error| SourceError::Io { path: path.to_owned(), error })
}

impl FolderSource {
    /// Opens a folder: every `*.png` in it is read once and its structure checked.
    ///
    /// # Errors
    /// Unreadable, none or too many files, or a file that is no PNG of the accepted kind.
    pub fn open(folder: &Path, limits: PngLimits) -> Result<Self, SourceError> {
        let io = |error| SourceError::Io { path: folder.to_owned(), error };
        let mut paths = Vec::new();
        for item in std::fs::read_dir(folder).map_err(io)? {
            let path = item.map_err(io)?.path();
            if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
                paths.push(path);
            }
        }
        let found = paths.len() as u64;
        if found == 0 || found > MAX_IMAGES {
            return Err(SourceError::Count { path: folder.to_owned(), found });
        }
        paths.sort();
        let mut all = Sha256::new().chain_update(b"perturb/folder-set/1");
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let bytes = read(&path, &limits)?;
            Pixels::png_shape(&bytes, &limits).map_err(|error| SourceError::Png { path: path.clone(), error })?;
            let digest = Digest::of(&bytes);
            let name = path.file_name().map(|n| n.as_encoded_bytes().to_vec()).unwrap_or_default();
            all.update((name.len() as u64).to_le_bytes());
            all.update(&name);
            all.update(digest.0);
            files.push((path, digest));
        }
        Ok(Self { files, fingerprint: Digest(all.finalize().into()), limits })
    }
}

impl ImageSource for FolderSource {
    fn len(&self) -> u64 {
        self.files.len() as u64
    }

    fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    fn get(&self, index: u64) -> Result<SourceImage, SourceError> {
        let range = SourceError::Range { index, len: self.len() };
        let at = usize::try_from(index).ok();
        let (path, digest) = at.and_then(|i| self.files.get(i)).ok_or(range)?;
        let bytes = read(path, &self.limits)?;
        if Digest::of(&bytes) != *digest {
            return Err(SourceError::Changed { path: path.clone() });
        }
        // The bytes are those of the fingerprint: everybody who has the set finds the same fault.
        let of_set =
            |error: DecodeError| SourceError::Image { set: path.display().to_string(), index, why: error.to_string() };
        let pixels = Pixels::decode_png(&bytes, &self.limits).map_err(of_set)?;
        Ok(SourceImage { pixels, label: None })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_image_that_does_not_decode_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut png = Pixels::new(4, 3, vec![1; 36]).unwrap().encode_png().unwrap();
        let data = png.windows(4).position(|w| w == b"IDAT").unwrap() + 6;
        png[data] ^= 255;
        std::fs::write(folder.path().join("a.png"), png).unwrap();
        let set = FolderSource::open(folder.path(), PngLimits::default()).unwrap();
        assert!(set.get(0).unwrap_err().one_image());
    }

    #[test]
    fn a_folder_is_read_in_order_and_changes_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        assert!(matches!(FolderSource::open(folder.path(), PngLimits::default()), Err(SourceError::Count { .. })));
        for (name, value) in [("b.png", 2u8), ("a.PNG", 1)] {
            let image = Pixels::new(4, 3, vec![value; 36]).unwrap();
            std::fs::write(path(name), image.encode_png().unwrap()).unwrap();
        }
        std::fs::write(path("notes.txt"), "not an image").unwrap();
        let source = FolderSource::open(folder.path(), PngLimits::default()).unwrap();
        assert_eq!((source.len(), source.get(0).unwrap().pixels.rgb[0]), (2, 1));
        let before = source.fingerprint();
        std::fs::write(path("b.png"), Pixels::new(4, 3, vec![9; 36]).unwrap().encode_png().unwrap()).unwrap();
        assert!(matches!(source.get(1), Err(SourceError::Changed { .. })));
        assert_ne!(FolderSource::open(folder.path(), PngLimits::default()).unwrap().fingerprint(), before);
        std::fs::write(path("c.png"), "garbage").unwrap();
        let refused = FolderSource::open(folder.path(), PngLimits::default()).unwrap_err().to_string();
        assert!(refused.contains("c.png") && refused.contains("not a PNG"), "{refused}");
    }
}
