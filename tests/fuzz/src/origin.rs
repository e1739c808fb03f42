//! Where the [`crate::world`] begins.

use perturb_challenge::rules::Rules;
use perturb_ledger::genesis::{Aggregation, Draws, GenesisDelegation, SpotChecks, Timeouts};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{ChainReference, ChallengeSpec, Genesis, Neuron, Parameters, Snapshot};
use perturb_types::{Beacon, ConsensusPair, Digest, NetworkId};

use crate::people::Signer;
use crate::world::{CHALLENGE, reference};

/// The subnet: validators with permits, miners without.
pub(crate) fn snapshot(hotkeys: &[Signer], miners: &[Signer], reference: ChainReference) -> Snapshot {
    let neuron = |(uid, (signer, permit)): (usize, (&Signer, bool))| Neuron {
        uid: uid as u16,
        hotkey: signer.hotkey(),
        coldkey: [uid as u8; 32],
        stake_rao: if permit { 5000 } else { 0 },
        permit,
    };
    let all = hotkeys.iter().map(|p| (p, true)).chain(miners.iter().map(|p| (p, false)));
    Snapshot {
        reference,
        tempo: 10,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: all.enumerate().map(neuron).collect(),
    }
}

/// Four founders, a fifth with a permit, three miners; histories of two; half of the rounds checked.
pub(crate) fn genesis(hotkeys: &[Signer], keys: &[ConsensusPair], miners: &[Signer], owner: &Signer) -> Genesis {
    let zero = NetworkId([0; 32]);
    let founders = hotkeys.iter().zip(keys).take(4);
    Genesis {
        chain_genesis: Digest([1; 32]),
        netuid: 2,
        time_ms: 1000,
        snapshot: snapshot(hotkeys, miners, reference(0)),
        delegations: founders.map(|(h, k)| GenesisDelegation::of(&h.delegate(&zero, k, 0))).collect(),
        owner: owner.hotkey(),
        challenges: vec![ChallengeSpec {
            id: CHALLENGE,
            mechanism: 0,
            rules: Rules::subnet().with_history_len(2),
            model: "demo".into(),
            model_digest: Digest([2; 32]),
            source: "demo:1:100".into(),
            source_fingerprint: Digest([3; 32]),
            source_len: 100,
            interval_ms: 1000,
            miners_per_round: 8,
            aggregation: Aggregation::Quantile,
            min_confidence: 50_000,
        }],
        parameters: Parameters {
            min_stake_rao: 1000,
            power: PowerRule::Equal,
            block_interval_ms: 500,
            max_block_transactions: 100,
            max_block_bytes: 1 << 20,
            max_rounds_per_epoch: 8,
            open_round_blocks: 3,
            burn_uid: 0,
            timeouts: Timeouts {
                propose_ms: 1000,
                propose_delta_ms: 200,
                prevote_ms: 500,
                prevote_delta_ms: 200,
                precommit_ms: 500,
                precommit_delta_ms: 200,
            },
            spot_checks: SpotChecks { rate: 500_000, window_blocks: 4, margin_tolerance: 50_000 },
            reputation: Default::default(),
            min_work: 10,
            proposal_age_ms: 10_000,
            order_delay_blocks: 1,
            draws: Draws { delay_ms: 20, pulse_stride: 1, retention_blocks: 100 },
        },
        beacon: Beacon { genesis_ms: 0, period_ms: 100, ..Beacon::DEVELOPMENT },
    }
}
