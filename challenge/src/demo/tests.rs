//! Tests of the drawn set.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use sha2::{Digest, Sha256};

/// SHA-256 over the pixels of images `0..count` of `seed`, each followed by its class (u16 LE).
fn digest(seed: u64, count: u64) -> String {
    let mut hash = Sha256::new();
    for (pixels, class) in DemoSet::new(seed, count).iter() {
        hash.update(&pixels.rgb);
        hash.update(class.to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn drawing_is_pinned() {
    assert_eq!(digest(1, 1), "7100f674fbcd7c166ca06026334797bbbe37ebba35872f0a5e89a096f33668dd");
    assert_eq!(digest(HELD_OUT_SEED, 64), "260c59dd6e5928320d3daad7162206d7def50e8072aefeb61480590736a4cbe7");
    assert_eq!(digest(u64::MAX, 16), "dd39583d6799330f77a2ca282fe83b21a1f7effaa3fb2b1b56a84349b57ecf31");
}

#[test]
fn an_image_depends_on_its_seed_and_index_only() {
    assert_eq!(draw(3, 4), draw(3, 4));
    assert_ne!(draw(3, 4).0.rgb, draw(3, 5).0.rgb);
    assert_ne!(draw(3, 4).0.rgb, draw(4, 3).0.rgb);
    let _ = draw(u64::MAX, u64::MAX);
}

#[test]
fn all_classes_are_drawn_about_equally_often() {
    let mut seen = [0_u32; CLASSES];
    for (_, class) in DemoSet::new(11, 1000).iter() {
        seen[usize::from(class)] += 1;
    }
    assert!(seen.iter().all(|count| (60..=150).contains(count)), "{seen:?}");
}

#[test]
fn images_are_textured_and_rarely_saturated() {
    for (pixels, class) in DemoSet::new(12, 200).iter() {
        assert_eq!((pixels.width, pixels.height), (SIDE, SIDE));
        assert_eq!(pixels.rgb.len(), (SIDE * SIDE * 3) as usize);
        let n = pixels.rgb.len() as f64;
        let mean = pixels.rgb.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let variance = pixels.rgb.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        assert!(variance.sqrt() > 6.0, "class {class}: {}", variance.sqrt());
        let saturated = pixels.rgb.iter().filter(|v| **v == 0 || **v == 255).count();
        assert!(saturated * 5 < pixels.rgb.len(), "class {class}: {saturated}");
    }
}

#[test]
fn a_set_ends_where_it_says() {
    let set = DemoSet::new(1, 3);
    assert!(set.get(2).is_some());
    assert!(set.get(3).is_none());
    assert_eq!(set.iter().count(), 3);
}

#[test]
fn grain_is_centred() {
    let mut word = 0;
    assert_eq!(triangular(&mut word), -1023.0 / 1024.0);
    let mut word = u64::MAX;
    assert_eq!(triangular(&mut word), 1023.0 / 1024.0);
    assert_eq!(to_byte(-3.0), 0);
    assert_eq!(to_byte(254.5), 255);
    assert_eq!(to_byte(999.0), 255);
    assert_eq!(to_byte(0.49), 0);
}
