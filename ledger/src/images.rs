//! The images of rounds, which their validators cannot choose.
//!
//! A round's image lot draws up to [`limits::MAX_DRAWS`] images of those that its validator's pass over the
//! set has not used ([`perturb_challenge::used`]), each with the secret of its transform. The first that
//! serves is the round's; it and those before it are used up. Whether those before it were passed over
//! rightly, and whether pixels and label of the one used are right, is looked at where a round is checked.
//!
//! No image is used twice in a pass. So that this can be told of every round, one round is open at a time,
//! and one that ran out owes the state its lot ([`RoundReveal`]) before the next one is opened. Nobody looks at
//! a round that was not closed, so which of the drawn images it showed is not asked either: all of them are used
//! up, or a false word would choose the next round's. A lot that is not shown within [`REVEAL_BLOCKS`] counts as
//! a failed check of a member and is owed no longer: which images were used is then unknown, the one exception.
//!
//! Where none of the images drawn serves or can be had, a [`RoundSkip`] uses them and the number up, which is
//! nobody's fault, at most [`MAX_SKIPS`] times in an epoch: it would else be a way to choose.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_challenge::used::{Page, Pages, Used};
use perturb_types::round::TransformSecret;
use perturb_types::vrf::Purpose;
use perturb_types::{
    ChallengeId, Digest, Envelope, Hotkey, NetworkId, RoundId, RoundKey, RoundResult, RoundReveal, RoundSkip, Signed,
    limits,
};

use crate::execute::{Executor, TxError, invalid};
use crate::state::{
    OpenRow, Overlay, hotkey_after, page_key, pages_of, pages_prefix, unrevealed_key, unrevealed_of, unrevealed_parts,
    unrevealed_prefix, used_key, used_of,
};
use crate::store::{StateStore, StoreError};

/// Blocks for which a round that ran out may still be revealed.
pub const REVEAL_BLOCKS: u64 = 30;

/// Rounds that a validator may skip in an epoch and challenge.
pub const MAX_SKIPS: u32 = 4;

/// A round that ran out, and owes the state its images.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct UnrevealedRow {
    /// Its number.
    pub seq: u64,
    /// The key that drew it.
    pub key: RoundKey,
    /// The seed with which it was drawn.
    pub seed: Digest,
    /// The height from which on it is not accepted any more.
    pub until: u64,
}

/// A validator's pass over a set, for who keeps it without a state.
#[derive(Clone, Debug)]
pub struct Pass {
    used: Used,
    pages: BTreeMap<u32, Page>,
}

impl Pass {
    /// A pass with its pages.
    #[must_use]
    pub fn new(used: Used, pages: BTreeMap<u32, Page>) -> Self {
        Self { used, pages }
    }

    /// Uses the next `count` images that a lot of this value draws. None where head and pages contradict each
    /// other.
    pub fn draw(&mut self, network: &NetworkId, value: &[u8; 32], count: usize) -> Option<Vec<u64>> {
        let Ok(images) = self.used.draw_lot(network, value, count, &mut self.pages);
        images
    }
}

/// The pages of a validator in the state.
struct StatePages<'x, 'a, S: ?Sized> {
    state: &'x mut Overlay<'a, S>,
    challenge: ChallengeId,
    validator: Hotkey,
}

impl<S: StateStore + ?Sized> Pages for StatePages<'_, '_, S> {
    type Error = StoreError;

    fn page(&self, page: u32) -> Result<Page, StoreError> {
        Ok(self.state.get(&page_key(self.challenge, &self.validator, page))?.unwrap_or_default())
    }

    fn put(&mut self, page: u32, images: Page) {
        self.state.put(page_key(self.challenge, &self.validator, page), &images);
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.state.delete_all(&pages_of(self.challenge, &self.validator))
    }
}

/// Uses the next `count` images that a round's image lot draws: their numbers in the set.
fn use_up<S: StateStore + ?Sized>(
    state: &mut Overlay<'_, S>,
    network: &NetworkId,
    (challenge, validator): (ChallengeId, Hotkey),
    len: u64,
    value: &[u8; 32],
    count: usize,
) -> Result<Vec<u64>, StoreError> {
    let head = used_key(challenge, &validator);
    let mut used: Used = state.get(&head)?.unwrap_or_else(|| Used::new(len));
    let images = used.draw_lot(network, value, count, &mut StatePages { state, challenge, validator })?;
    state.put(head, &used);
    images.ok_or_else(|| StoreError(format!("the used images of {validator} contradict themselves")))
}

/// The images that a validator's image lot of this value draws next from the challenge's set of so many,
/// and the secrets of their transforms.
///
/// # Errors
/// The store cannot be read.
pub fn upcoming<S: StateStore + ?Sized>(
    store: &S,
    network: &NetworkId,
    (challenge, len): (ChallengeId, u64),
    validator: Hotkey,
    value: &[u8; 32],
) -> Result<Vec<(u64, TransformSecret)>, StoreError> {
    let mut state = Overlay::new(store);
    let images = use_up(&mut state, network, (challenge, validator), len, value, limits::MAX_DRAWS)?;
    let with_secret = |(image, attempt)| (image, TransformSecret::of(network, value, attempt));
    Ok(images.into_iter().zip(0..).map(with_secret).collect())
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// Uses up everything that was drawn for a round.
    fn use_all(&mut self, round: &RoundId, value: &[u8; 32]) -> Result<(), TxError> {
        let (network, len) = (self.network(), self.spec(round.challenge)?.source_len);
        use_up(&mut self.state, &network, (round.challenge, round.validator), len, value, limits::MAX_DRAWS)?;
        Ok(())
    }

    /// Checks what a result says of its images, of a set of `len`, and uses them up; the value of their lot.
    pub(crate) fn take_images(
        &mut self,
        opened: &OpenRow,
        result: &RoundResult,
        len: u64,
    ) -> Result<[u8; 32], TxError> {
        let (round, network) = (result.round, self.network());
        let skipped = result.skipped.len();
        if skipped >= limits::MAX_DRAWS {
            return invalid(format!("round {round}: more images than a round draws"));
        }
        let value = self.open_lot(&round, (Purpose::Image, round.seq), (&opened.key, opened.seed), &result.images)?;
        if result.transform != TransformSecret::of(&network, &value, skipped as u64) {
            return invalid(format!("round {round}: its transform is not the one that was drawn"));
        }
        let of = (round.challenge, round.validator);
        let drawn = use_up(&mut self.state, &network, of, len, &value, skipped + 1)?;
        if !drawn.iter().eq(result.skipped.iter().chain([&result.source_index])) {
            return invalid(format!("round {round}: its images are not those that were drawn"));
        }
        Ok(value)
    }

    /// A round that ran out owes its images.
    pub(crate) fn owe_images(&mut self, round: &RoundId, opened: &OpenRow) {
        let until = self.height().saturating_add(REVEAL_BLOCKS);
        let row = UnrevealedRow { seq: round.seq, key: opened.key, seed: opened.seed, until };
        self.state.put(unrevealed_key(round.challenge, &round.validator), &row);
    }

    /// Gives up what was not shown in time.
    pub(crate) fn lapse_reveals(&mut self) -> Result<(), TxError> {
        for (key, row) in self.state.scan(unrevealed_prefix())? {
            let row: UnrevealedRow = crate::state::parse(&key, &row)?;
            if row.until > self.height() {
                continue;
            }
            // Who is no member any more could not show it.
            let member = |v: &Hotkey| self.frame.set.by_hotkey(v).is_some();
            if let Some((_, validator)) = unrevealed_parts(&key).filter(|(_, v)| member(v)) {
                self.blame(&validator, |r| r.failed_checks += 1)?;
            }
            self.state.delete(key);
        }
        self.state.accept();
        Ok(())
    }

    /// Pays what a round that ran out owes.
    pub(crate) fn reveal(&mut self, envelope: Envelope) -> Result<(), TxError> {
        let reveal: Signed<RoundReveal> = self.open_envelope(envelope)?;
        let round = reveal.round;
        self.member("round reveal", &reveal.signer(), &round.validator)?;
        let key = unrevealed_key(round.challenge, &round.validator);
        let owed: Option<UnrevealedRow> = self.state.get(&key)?;
        let Some(owed) = owed.filter(|owed| owed.seq == round.seq) else {
            return invalid(format!("round {round} owes nothing"));
        };
        let value = self.open_lot(&round, (Purpose::Image, round.seq), (&owed.key, owed.seed), &reveal.images)?;
        self.use_all(&round, &value)?;
        self.state.delete(key);
        Ok(())
    }

    /// Uses up a round none of whose images serves.
    pub(crate) fn skip(&mut self, envelope: Envelope) -> Result<(), TxError> {
        let skip: Signed<RoundSkip> = self.open_envelope(envelope)?;
        let round = skip.round;
        self.member("round skip", &skip.signer(), &round.validator)?;
        let mut row = self.next_round(&round)?;
        if row.skipped >= MAX_SKIPS {
            return Err(TxError::Early(format!("round {round}: {MAX_SKIPS} rounds were skipped in this epoch")));
        }
        let (key, seed) = self.draws_with("round skip", skip.epoch, &round.validator)?;
        let value = self.open_lot(&round, (Purpose::Image, round.seq), (&key, seed), &skip.images)?;
        self.use_all(&round, &value)?;
        row.next += 1;
        row.skipped += 1;
        row.passed += 1;
        self.put_sequence(&round, &row);
        Ok(())
    }

    /// Nothing is owed any more in a challenge; nobody is to blame.
    pub(crate) fn void_reveals(&mut self, challenge: ChallengeId) -> Result<(), TxError> {
        Ok(self.state.delete_all(&unrevealed_of(challenge))?)
    }

    /// Who is not registered any more has no pass.
    pub(crate) fn forget_passes(
        &mut self,
        challenge: ChallengeId,
        registered: impl Fn(&Hotkey) -> bool,
    ) -> Result<(), TxError> {
        let prefix = used_of(challenge);
        for (key, _) in self.state.scan(&prefix)? {
            if let Some(validator) = hotkey_after(&prefix, &key).filter(|v| !registered(v)) {
                self.state.delete_all(&pages_of(challenge, &validator))?;
                self.state.delete(key);
            }
        }
        Ok(())
    }

    /// A challenge has another set: all passes begin anew.
    pub(crate) fn forget_images(&mut self, challenge: ChallengeId) -> Result<(), TxError> {
        self.state.delete_all(&used_of(challenge))?;
        Ok(self.state.delete_all(&pages_prefix(challenge))?)
    }
}
