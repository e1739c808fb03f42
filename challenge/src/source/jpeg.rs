//! How a JPEG is coded, from its headers.

/// The coding of a JPEG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    /// Whether detail comes in several passes.
    pub(super) progressive: bool,
    /// For each component how many samples it has across (high four bits) and down (low four bits),
    /// where the least have one.
    pub(super) factors: Vec<u8>,
    /// Components of the first scan.
    pub(super) scanned: u8,
    /// Whether the coded data has marks to begin again at.
    pub(super) restarts: bool,
}

impl Coding {
    /// Reads the headers up to the first scan; none where they make no sense.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (mut frame, mut restarts, mut rest) = (None, false, bytes.get(2..)?);
        loop {
            let [0xff, marker, high, low, ..] = *rest else { return None };
            if marker == 0xff {
                // A byte to fill.
                rest = &rest[1..];
                continue;
            }
            let length = usize::from(u16::from_be_bytes([high, low]));
            let segment = rest.get(4..2 + length)?;
            match marker {
                0xc0..=0xc2 => {
                    let count = usize::from(*segment.get(5)?);
                    let components = segment.get(6..)?.chunks_exact(3).map(|c| c[1]);
                    let factors: Vec<u8> = components.take(count).collect();
                    frame = Some((marker == 0xc2, factors)).filter(|(_, f)| f.len() == count);
                }
                0xdd => restarts = true,
                0xda => {
                    let (progressive, factors) = frame?;
                    return Some(Self { progressive, factors, scanned: *segment.first()?, restarts });
                }
                _ => {}
            }
            rest = rest.get(2 + length..)?;
        }
    }

    /// Whether one of the probes is of this coding, restarts aside. Of baseline pictures only those with
    /// all components in one scan: of others the decoder makes something else than was drawn.
    pub(super) fn probed(&self) -> bool {
        let one_scan = self.progressive || usize::from(self.scanned) == self.factors.len();
        one_scan && matches!(*self.factors, [0x11 | 0x22] | [0x11 | 0x21 | 0x12 | 0x22, 0x11, 0x11])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const SCANS: &[u8] = include_bytes!("probes/420-scans.jpg");

    #[test]
    fn headers_by_hand() {
        let coding = |bytes: &[u8]| Coding::read(bytes);
        let frame = |factors: u8| [0xff, 0xff, 0xc0, 0, 11, 8, 0, 1, 0, 1, 1, 1, factors, 0];
        let scan = [0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0];
        let whole = |factors| [&[0xff, 0xd8][..], &frame(factors), &scan].concat();
        let read = coding(&whole(0x11)).unwrap();
        assert_eq!(read, Coding { progressive: false, factors: vec![0x11], scanned: 1, restarts: false });
        assert!(read.probed() && coding(&whole(0x22)).unwrap().probed());
        assert!(!coding(&whole(0x41)).unwrap().probed());
        assert_eq!(coding(&[&[0xff, 0xd8][..], &scan].concat()), None, "a scan of no frame");
        assert_eq!(coding(&whole(0x11)[..20]), None);
    }

    #[test]
    fn a_baseline_picture_with_a_scan_for_each_component_is_told() {
        let read = Coding::read(SCANS).unwrap();
        assert_eq!((read.scanned, read.factors.len(), read.probed()), (1, 3, false));
    }

    proptest! {
        #[test]
        fn damaged_headers_are_read_or_not(at in 0..SCANS.len(), value: u8, cut in 0..SCANS.len()) {
            let mut bytes = SCANS.to_vec();
            bytes[at] = value;
            let _ = Coding::read(&bytes);
            let _ = Coding::read(&bytes[..cut]);
        }
    }
}
