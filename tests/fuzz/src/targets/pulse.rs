//! Pulses of the beacon: who has no key makes none.

use perturb_ledger::{Pulse, pulse};
use perturb_types::Beacon;

use super::canonical;

/// A pulse, a beacon's key and a round out of an input: what verifies is the one signature of its round.
pub fn pulse(bytes: &[u8]) {
    if let Some(pulse) = canonical::<Pulse>(bytes, 56) {
        let true_one = Pulse::of_development(pulse.round).unwrap();
        assert!(pulse.verify(&Beacon::DEVELOPMENT) == (pulse == true_one), "round {} has two pulses", pulse.round);
        assert!(!pulse.verify(&Beacon::QUICKNET) || crate::seeds::published().contains(&pulse), "a forged pulse");
    }
    // Any bytes as a key: a beacon that is taken has a key of the group, under which no stranger's pulse holds.
    if let Some(key) = bytes.first_chunk::<96>() {
        let beacon = Beacon { public_key: *key, ..Beacon::QUICKNET };
        if pulse::check_beacon(&beacon).is_ok() && !beacon.is_development() {
            assert!(!Pulse::of_development(7).unwrap().verify(&beacon));
        }
    }
    if let Some(numbers) = bytes.first_chunk::<24>() {
        let number = |i: usize| u64::from_le_bytes(numbers[i * 8..i * 8 + 8].try_into().unwrap());
        let beacon = Beacon { genesis_ms: number(0), period_ms: number(1) % 1_000_000 + 1, ..Beacon::QUICKNET };
        let round = beacon.first_from(number(2), number(0) % 1000);
        assert!(round > 0);
        assert!(beacon.time_of(round) >= number(2) || round > u64::MAX / 2, "{beacon:?} at {}: {round}", number(2));
    }
}
