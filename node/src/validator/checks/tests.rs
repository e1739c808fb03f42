#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::collections::BTreeMap;
use std::time::Instant;

use perturb_challenge::classifier::ClassifierError;
use perturb_challenge::construct::Wanted;
use perturb_challenge::pixels::Pixels;
use perturb_challenge::rules::{Rules, SemanticRule, TransformRules};
use perturb_challenge::semantics::Exact;
use perturb_challenge::semantics::labels::Labels;
use perturb_challenge::source::{DemoSource, SourceError, SourceImage};
use perturb_challenge::verify::{Verdict, verify_batch};
use perturb_ledger::genesis::Aggregation;
use perturb_ledger::spot::FreshRow;
use perturb_ledger::verdict::Finding;
use perturb_types::round::TransformSecret;
use perturb_types::{ChallengeId, Digest, Hotkey, Lot, NetworkId, Reason, RoundResult};

use super::evidence::Evidence;
use super::*;

/// Class 1 leads by ten where a value is odd.
struct Odd;

impl Classifier for Odd {
    fn name(&self) -> &str {
        "odd"
    }
    fn digest(&self) -> Digest {
        Digest([0; 32])
    }
    fn classes(&self) -> usize {
        2
    }
    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        let odd = |i: &&Pixels| i.rgb.iter().any(|v| v % 2 == 1);
        Ok(images.iter().map(|i| vec![0.0, if odd(i) { 10.0 } else { -10.0 }]).collect())
    }
}

/// An image set all of whose values are even, so that the model says class 0; every other label is class 1.
struct Even(DemoSource);

impl ImageSource for Even {
    fn fingerprint(&self) -> Digest {
        self.0.fingerprint()
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn label_names(&self) -> Vec<String> {
        ["tench", "goldfish"].map(str::to_owned).into()
    }
    fn get(&self, index: u64) -> Result<SourceImage, SourceError> {
        let mut image = self.0.get(index)?;
        image.pixels.rgb.iter_mut().for_each(|v| *v = (*v & !1).clamp(20, 220));
        image.label = Some((index % 2) as u16);
        Ok(image)
    }
}

/// Results and images of made-up rounds; what is in `hangs` never comes.
#[derive(Default)]
struct Given {
    results: BTreeMap<RoundId, RoundResult>,
    images: BTreeMap<Digest, Vec<u8>>,
    hangs: Vec<Digest>,
}

impl Evidence for Arc<Given> {
    async fn result(&self, round: &RoundId, _: &CheckRow) -> Result<Option<RoundResult>> {
        Ok(self.results.get(round).cloned())
    }

    async fn image(&self, digest: Digest, _: &RoundId, most: usize) -> Result<Option<Vec<u8>>> {
        if self.hangs.contains(&digest) {
            std::future::pending::<()>().await;
        }
        Ok(self.images.get(&digest).filter(|png| png.len() <= most).cloned())
    }
}

fn looker() -> Looker {
    let transform = TransformRules { flip: false, crop: 0, brightness: 0, field: 0, cells: 0 };
    let rules = Rules { transform, ..Rules::subnet() };
    Looker {
        spec: ChallengeSpec {
            id: ChallengeId(0),
            mechanism: 0,
            rules,
            model: "odd".into(),
            model_digest: Digest([0; 32]),
            source: "demo:1:64".into(),
            source_fingerprint: Digest([0; 32]),
            source_len: 100,
            interval_ms: 1000,
            miners_per_round: 8,
            aggregation: Aggregation::Quantile,
            min_confidence: 50_000,
        },
        classifier: Arc::new(Odd),
        source: Arc::new(Even(DemoSource::new(1, 64))),
        semantics: Arc::new(Exact),
        wanted: Wanted::default(),
        id: NetworkId([9; 32]),
        model: Semaphore::new(1),
        stop: CancellationToken::new(),
    }
}

fn round(validator: u8, seq: u64) -> RoundId {
    RoundId { validator: Hotkey([validator; 32]), challenge: ChallengeId(0), seq }
}

const PATIENCE: Patience = Patience { image: Duration::from_millis(300), whole: Duration::from_millis(900) };

impl Given {
    /// An honest round whose answers change so many values each; its row.
    fn add(&mut self, looker: &Looker, round: RoundId, answers: &[usize]) -> CheckRow {
        let (clean, label) = (looker.source.get(round.seq).unwrap().pixels, 0);
        let png = clean.encode_png().unwrap();
        let pngs: Vec<Vec<u8>> = answers
            .iter()
            .map(|count| {
                let mut p = clean.clone();
                p.rgb.iter_mut().take(*count).for_each(|v| *v ^= 1);
                p.encode_png().unwrap()
            })
            .collect();
        let refs: Vec<&[u8]> = pngs.iter().map(Vec::as_slice).collect();
        let verdicts = verify_batch(&looker.spec.rules, &clean, label, &refs, &Odd, &Exact);
        let entry = |(i, (v, png)): (usize, (Verdict, &Vec<u8>))| {
            v.entry(&looker.spec.rules, label, Hotkey([100 + i as u8; 32]), Digest::of(png), 500, false)
        };
        let entries = verdicts.into_iter().zip(&pngs).enumerate().map(entry).collect();
        let (open, transform, source_index) = (Digest([0; 32]), TransformSecret([0; 32]), round.seq);
        let (images, skipped) = (Lot { point: [0; 32], proof: [0; 64] }, vec![]);
        let result = RoundResult { round, open, images, skipped, source_index, transform, label, entries };
        let fresh = FreshRow { result: Digest([1; 32]), image: Digest::of(&png), value: [9; 32], height: 1 };
        self.results.insert(round, result);
        self.images.extend(pngs.into_iter().chain([png]).map(|png| (Digest::of(&png), png)));
        CheckRow::new(fresh, 2)
    }

    fn answer(&self, round: &RoundId, i: usize) -> Digest {
        self.results[round].entries[i].answer.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_rounds_hold_and_what_was_invented_fails() {
    let looker = looker();
    let mut given = Given::default();
    let (honest, forged, stated) = (round(1, 1), round(2, 2), round(3, 3));
    let mut rows = Vec::new();
    for round in [honest, forged, stated] {
        rows.push((round, given.add(&looker, round, &[40, 60])));
    }
    given.results.get_mut(&forged).unwrap().entries[1].measurement.changed -= 1;
    let zero = &mut given.results.get_mut(&stated).unwrap().entries[0];
    (zero.measurement, zero.reason) = (Default::default(), Reason::DecodeFailed);
    let given = Arc::new(given);
    let mut found = Vec::new();
    for (round, row) in &rows {
        found.push(looker.look(&given, round, row, 50_000, PATIENCE).await.unwrap());
    }
    let fails = |finding| Outcome::Fails(finding);
    assert_eq!(found, [Outcome::Holds, fails(Finding::Measurement), fails(Finding::Stated)]);
}

/// Which of the drawn images is the round's is no choice: neither one that serves is passed over, nor is one used
/// that does not.
#[tokio::test(flavor = "multi_thread")]
async fn who_uses_an_image_that_does_not_serve_fails_its_check() {
    let mut looker = looker();
    looker.spec.rules.semantic = SemanticRule::Exact;
    looker.wanted = Wanted::new(&looker.spec.rules, looker.source.as_ref(), Some(&Labels::imagenet())).unwrap();
    let mut given = Given::default();
    let (serves, wrong, skips) = (round(1, 2), round(2, 3), round(3, 4));
    let rows = [serves, wrong, skips].map(|round| given.add(&looker, round, &[40]));
    given.results.get_mut(&serves).unwrap().skipped = vec![5, 7];
    given.results.get_mut(&skips).unwrap().skipped = vec![5, 6];
    let given = Arc::new(given);
    let mut found = Vec::new();
    for (round, row) in [serves, wrong, skips].iter().zip(&rows) {
        found.push(looker.look(&given, round, row, 50_000, PATIENCE).await.unwrap());
    }
    assert_eq!(
        found,
        [Outcome::Holds, Outcome::Fails(Finding::ImageWrong), Outcome::Fails(Finding::Skipped)],
        "5 and 7 are taken for another class, and so is 3; 6 is not"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_hides_nothing_that_came() {
    let looker = looker();
    let mut given = Given::default();
    let (withheld, forged) = (round(1, 1), round(2, 2));
    let rows = [withheld, forged].map(|round| given.add(&looker, round, &[40, 60, 80]));
    given.results.get_mut(&forged).unwrap().entries[2].measurement.changed -= 1;
    // One does not come at all, one hangs; the third came.
    for round in [withheld, forged] {
        given.hangs.push(given.answer(&round, 0));
        let absent = given.answer(&round, 1);
        given.images.remove(&absent);
    }
    let given = Arc::new(given);
    let found = looker.look(&given, &withheld, &rows[0], 50_000, PATIENCE).await.unwrap();
    assert_eq!(found, Outcome::Later(Finding::AnswerMissing));
    let found = looker.look(&given, &forged, &rows[1], 50_000, PATIENCE).await.unwrap();
    assert_eq!(found, Outcome::Fails(Finding::Measurement));
}

/// Validators whose every image hangs hold their own lanes, and one honest round after the other is judged
/// meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_whose_images_hang_delays_no_other() {
    let looker = Arc::new(looker());
    let mut given = Given::default();
    let mut due = Vec::new();
    for seq in 0..6 {
        let hanging = round(1, seq);
        let row = given.add(&looker, hanging, &[30 + seq as usize]);
        given.hangs.push(row.fresh.image);
        due.push((hanging, row));
    }
    for seq in 10..16 {
        due.push((
            round(2 + seq as u8 % 3, seq),
            given.add(&looker, round(2 + seq as u8 % 3, seq), &[30 + seq as usize]),
        ));
    }
    let given = Arc::new(given);
    let patience = Patience { image: Duration::from_secs(60), whole: Duration::from_secs(60) };
    let mut lanes: Lanes<Result<Outcome>> = Lanes::new();
    let (began, mut judged) = (Instant::now(), 0);
    while judged < 6 {
        due.retain(|(round, row)| {
            let room = lanes.has_room(round);
            if room {
                let (looker, given, round, row) = (looker.clone(), given.clone(), *round, row.clone());
                lanes.start(round, async move { looker.look(&given, &round, &row, 50_000, patience).await });
            }
            !room
        });
        let (round, outcome) = tokio::time::timeout(Duration::from_secs(20), lanes.next()).await.unwrap().unwrap();
        assert_eq!((round.validator == Hotkey([1; 32]), outcome.unwrap()), (false, Outcome::Holds));
        judged += 1;
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(due.len(), 4, "of six that hang two are being looked at");
}

#[test]
fn what_may_still_change_is_said_late_and_what_is_known_at_once() {
    let window = 10;
    let missing = Outcome::Later(Finding::AnswerMissing);
    assert_eq!(verdict(Outcome::Holds, 100, 100, window), Some(Checked::Holds));
    assert_eq!(verdict(Outcome::Fails(Finding::Label), 100, 100, window), Some(Checked::Fails(Finding::Label)));
    assert_eq!(verdict(missing, 104, 100, window), None);
    assert_eq!(verdict(missing, 105, 100, window), Some(Checked::Fails(Finding::AnswerMissing)));
    assert_eq!(verdict(Outcome::Unknown, 107, 100, window), None);
    assert_eq!(verdict(Outcome::Unknown, 108, 100, window), Some(Checked::Unknown), "before the window is over");
    assert_eq!(verdict(Outcome::Unknown, 100, 100, 1), None);
    assert_eq!(verdict(Outcome::Unknown, 101, 100, 1), Some(Checked::Unknown));
}

#[test]
fn a_look_ends_well_within_its_window() {
    for window_blocks in [1, 10, 200, u64::MAX] {
        let (peer, look) = patience(1000, window_blocks);
        assert!(peer <= look.image && look.image <= look.whole && look.whole <= MOST.2);
        let window = Duration::from_secs(window_blocks.min(1 << 32));
        assert!(look.whole * 2 <= window, "half of it is left for the model and for a block");
    }
}
