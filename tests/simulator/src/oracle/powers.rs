//! Voting power, restated from its definition and not from the ledger's code.

/// Powers of stakes in TAO: all equal, or by stake with nobody above a quarter of what there is.
///
/// The cap is the largest c with 4·c ≤ Σ min(stake, c), found by trying; where none is positive, all
/// are equal.
pub fn of(by_stake: bool, stakes: Vec<u64>) -> Vec<u128> {
    if !by_stake {
        return vec![1; stakes.len()];
    }
    let stakes: Vec<u128> = stakes.into_iter().map(u128::from).collect();
    let capped = |c: u128| stakes.iter().map(|s| (*s).min(c)).sum::<u128>();
    let highest = stakes.iter().copied().max().unwrap_or(1);
    let cap = (1..=highest).rev().find(|c| 4 * c <= capped(*c)).unwrap_or(1);
    stakes.iter().map(|s| (*s).min(cap)).collect()
}
