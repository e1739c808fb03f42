//! Published rounds of quicknet, and all that looks like one and is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

/// Rounds that quicknet's nodes published (`https://api.drand.sh/52db9ba7…/public/ROUND`).
pub(crate) const PUBLISHED: [(u64, &str); 8] = [
    (1000, "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"),
    (1001, "b33bf3667cbd5a82de3a24b4e0e9fe5513cc1a0e840368c6e31f5fcfa79bea03f73896b25883abf2853d10337fb8fa41"),
    (1002, "ab066f9c12dd6de1336fca0f925192fb0c72a771c3e4c82ede1fd362c1a770f9eb05843c6308ce2530b53a99c0281a6e"),
    (1003, "b104c82771698f45fd8dcfead083d482694c31ab519bcef077f126f3736fe98c8392fd5d45d88aeb76b56ccfcb0296d7"),
    (12_040_883, "929906c959032ab363c9f26570d215d66f5c06cb0c44fe508c12bb5839f04ec895bb6868e5b9ff13ab289bdb5266b394"),
    (32_281_667, "b0f5ae301358ff87a9d3dd539ed4a07c0148b1ab4f7b61a8ca43c7e9ca7ca9553e4faae9188deb30b2cd1a7f447e3e5b"),
    (32_285_085, "81dbce51d584d90d618547f4b50391d53ace6f6b9aeb8fb67e1879427af9d0310ac0ec6f519271d9a313ee84b378d416"),
    (32_285_086, "a64d99fd7fa3e48912be7209c7b69c72c88fc5224be2516949b6f29f3a4b7e3fa069dd58b2bbb4bf2c34ae61ef631a44"),
];

/// Round 1000 of another beacon of drand's, *fastnet*: the same scheme, another key.
const FASTNET_1000: &str =
    "b09eacd45767c4d58306b98901ad0d6086e2663766f3a4ec71d00cf26f0f49eaf248abc7151c60cf419c4e8b37e80412";

fn of(round: u64, hex: &str) -> Pulse {
    let mut signature = [0; SIGNATURE_BYTES];
    hex::decode_to_slice(hex, &mut signature).unwrap();
    Pulse { round, signature }
}

/// A published round.
pub(crate) fn published(round: u64) -> Pulse {
    let (round, hex) = PUBLISHED.iter().find(|(r, _)| *r == round).unwrap();
    of(*round, hex)
}

#[test]
fn what_quicknet_published_verifies_under_its_key_and_no_other() {
    for (round, hex) in PUBLISHED {
        let pulse = of(round, hex);
        assert!(pulse.verify(&Beacon::QUICKNET), "round {round}");
        assert!(!pulse.verify(&Beacon::DEVELOPMENT), "another key");
        assert!(!Pulse { round: round + 1, ..pulse }.verify(&Beacon::QUICKNET), "another round");
    }
    assert!(!of(1000, FASTNET_1000).verify(&Beacon::QUICKNET), "another beacon's round");
}

#[test]
fn a_pulse_with_any_bit_turned_is_none() {
    let good = published(1000);
    for bit in 0..8 * SIGNATURE_BYTES {
        let mut bad = good;
        bad.signature[bit / 8] ^= 1 << (bit % 8);
        assert!(!bad.verify(&Beacon::QUICKNET), "bit {bit}");
    }
}

#[test]
fn points_that_everybody_can_make_are_refused() {
    let mut infinity = [0; SIGNATURE_BYTES];
    infinity[0] = 0xc0;
    // On the curve (x = 4), outside the subgroup.
    let mut outside = [0; SIGNATURE_BYTES];
    (outside[0], outside[47]) = (0x80, 4);
    assert!(Signature::from_bytes(&outside).is_ok(), "a point of the curve");
    for signature in [infinity, outside, [0; SIGNATURE_BYTES], [0xff; SIGNATURE_BYTES]] {
        for round in [0, 1, 1000] {
            assert!(!Pulse { round, signature }.verify(&Beacon::QUICKNET));
        }
    }
}

#[test]
fn a_beacon_whose_key_anybody_could_sign_for_is_refused() {
    check_beacon(&Beacon::QUICKNET).unwrap();
    check_beacon(&Beacon::DEVELOPMENT).unwrap();
    let mut infinity = [0; 96];
    infinity[0] = 0xc0;
    // On the twist (x = 2), outside the subgroup.
    let mut outside = [0; 96];
    (outside[0], outside[95]) = (0x80, 2);
    for public_key in [infinity, outside, [0; 96], [7; 96]] {
        assert!(check_beacon(&Beacon { public_key, ..Beacon::QUICKNET }).is_err());
    }
    for period_ms in [0, MIN_PERIOD_MS - 1, MAX_PERIOD_MS + 1] {
        assert!(check_beacon(&Beacon { period_ms, ..Beacon::QUICKNET }).is_err());
    }
}

#[test]
fn the_development_beacons_rounds_verify_under_its_own_key_only() {
    let pulse = Pulse::of_development(77).unwrap();
    assert!(pulse.verify(&Beacon::DEVELOPMENT));
    assert!(!pulse.verify(&Beacon::QUICKNET));
    assert!(!Pulse { round: 78, ..pulse }.verify(&Beacon::DEVELOPMENT));
}
