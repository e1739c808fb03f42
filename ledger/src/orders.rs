//! The owner's orders: agreed in one block, in force from a stated height on.
//!
//! An order that was agreed waits in the state under its height and nonce, for at least
//! `order_delay_blocks`: what a stolen key orders is seen, and revoked, before it holds. What it may order
//! at most says [`crate::bounds`]. At the beginning of the block of that height all orders due are
//! carried out in the order of their nonces. One that makes no sense any more (a challenge to be added
//! that is there by then) does nothing.

use perturb_types::ChallengeId;

use crate::execute::{Executor, TxError};
use crate::genesis::{ChallengeSpec, GenesisError, MAX_CHALLENGES, Parameters};
use crate::state::{
    self, PARAMETERS, asked_prefix, challenge_key, history_prefix, order_key, order_nonce, order_prefix,
};
use crate::store::StateStore;
use crate::tx::{Order, OwnerAction};

/// Blocks by which an order may be ahead: months.
const MAX_AHEAD: u64 = 10_000_000;

/// Orders that may wait.
const MAX_WAITING: usize = 64;

/// Milliseconds for which a round is open at least.
fn open_ms(p: &Parameters) -> u64 {
    p.open_round_blocks.saturating_mul(u64::from(p.block_interval_ms))
}

fn invalid<T>(why: impl std::fmt::Display) -> Result<T, TxError> {
    Err(TxError::Invalid(format!("owner action: {why}")))
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    pub(crate) fn owner_action(&mut self, action: &OwnerAction) -> Result<(), TxError> {
        // Always verified: whose signature it must be can have changed since it was first seen.
        if !action.verify(&self.network(), &self.frame.meta.owner) {
            return invalid("the signature is not the owner's");
        }
        if action.expires < self.height() {
            return invalid(format!("expired at height {}", action.expires));
        }
        let next = self.frame.meta.owner_nonce;
        if action.nonce > next {
            return Err(TxError::Early(format!("owner action: the next nonce is {next}")));
        }
        if action.nonce < next {
            return invalid(format!("nonce {} has been used", action.nonce));
        }
        let height = self.height();
        let least = height + self.delay(&action.order);
        if action.effective < least || action.effective - height > MAX_AHEAD {
            return invalid(format!("its height {} must lie in {least}..={}", action.effective, height + MAX_AHEAD));
        }
        self.check_order(&action.order)?;
        let waiting = self.state.scan(order_prefix())?;
        if let Order::Revoke(nonce) = &action.order {
            let Some((key, _)) = waiting.iter().find(|(key, _)| order_nonce(key) == Some(*nonce)) else {
                return invalid(format!("no order {nonce} waits"));
            };
            self.state.delete(key.clone());
        } else {
            if waiting.len() >= MAX_WAITING {
                return invalid(format!("{MAX_WAITING} orders wait already"));
            }
            self.state.put(order_key(action.effective, action.nonce), &action.order);
        }
        self.frame.meta.owner_nonce += 1;
        Ok(())
    }

    /// Blocks for which an order waits at least after the one that has it: as long as it can be seen, and
    /// revoked. Taking back needs no waiting.
    fn delay(&self, order: &Order) -> u64 {
        match order {
            Order::Revoke(_) => 1,
            _ => u64::from(self.frame.parameters.order_delay_blocks).max(1),
        }
    }

    /// What can be said of an order before it is due.
    fn check_order(&self, order: &Order) -> Result<(), TxError> {
        let sane =
            |checked: Result<(), GenesisError>| checked.map_err(|e| TxError::Invalid(format!("owner action: {e}")));
        match order {
            Order::AddChallenge(spec) => {
                sane(spec.validate())?;
                if !self.has_room_for(spec)? {
                    return invalid(format!("challenge {} is there, or there are too many", spec.id));
                }
                self.check_deadline(spec)?;
            }
            Order::UpdateChallenge(spec) => {
                sane(spec.validate())?;
                self.spec(spec.id)?;
                self.check_deadline(spec)?;
            }
            Order::RemoveChallenge(id) => {
                self.spec(*id)?;
            }
            Order::SetParameters(parameters) => {
                sane(parameters.validate())?;
                self.check_successor(parameters)?;
                sane(parameters.draws.validate(self.beacon(), parameters.block_interval_ms))?;
            }
            Order::SetRequiredVersion(..) | Order::Revoke(_) | Order::SetOwner(_) => {}
        }
        Ok(())
    }

    /// What no order changes, and what would end rounds before their answers are due: then everybody
    /// would be blamed for never closing them.
    fn check_successor(&self, next: &Parameters) -> Result<(), TxError> {
        let now = &self.frame.parameters;
        if next.order_delay_blocks != now.order_delay_blocks {
            return invalid(format!("order_delay_blocks is {} for good", now.order_delay_blocks));
        }
        let needed = self.longest_deadline_ms()?.min(open_ms(now));
        if open_ms(next) < needed {
            return invalid(format!("a round would be open for {} ms, answers take {needed}", open_ms(next)));
        }
        Ok(())
    }

    /// A challenge's answers are due before its rounds count as never closed (or no later than those of
    /// the challenges that there are).
    fn check_deadline(&self, spec: &ChallengeSpec) -> Result<(), TxError> {
        let most = open_ms(&self.frame.parameters).max(self.longest_deadline_ms()?);
        if u64::from(spec.rules.deadline_ms) > most {
            return invalid(format!(
                "challenge {}: answers take {} ms, at most {most}",
                spec.id, spec.rules.deadline_ms
            ));
        }
        Ok(())
    }

    fn longest_deadline_ms(&self) -> Result<u64, TxError> {
        let all = state::challenges(&self.state)?;
        Ok(all.iter().map(|c| u64::from(c.rules.deadline_ms)).max().unwrap_or(0))
    }

    fn has_room_for(&self, spec: &ChallengeSpec) -> Result<bool, TxError> {
        let all = state::challenges(&self.state)?;
        Ok(all.len() < MAX_CHALLENGES && all.iter().all(|c| c.id != spec.id))
    }

    /// Carries out the orders that are due at this height.
    pub(crate) fn carry_out_orders(&mut self) -> Result<(), TxError> {
        for (key, row) in self.state.scan(order_prefix())? {
            if state::order_height(&key).is_some_and(|height| height > self.height()) {
                break;
            }
            let order: Order = state::parse(&key, &row)?;
            self.state.delete(key);
            self.carry_out(&order)?;
        }
        self.state.accept();
        Ok(())
    }

    fn carry_out(&mut self, order: &Order) -> Result<(), TxError> {
        match order {
            Order::AddChallenge(spec) => {
                if self.has_room_for(spec)? && self.check_deadline(spec).is_ok() {
                    self.state.put(challenge_key(spec.id), spec.as_ref());
                }
            }
            Order::UpdateChallenge(spec) => {
                if self.state.has(&challenge_key(spec.id))? && self.check_deadline(spec).is_ok() {
                    // They were asked under the old rules and cannot be judged by the new.
                    self.void_rounds(spec.id)?;
                    self.forget_checks(spec.id)?;
                    let before = self.spec(spec.id)?;
                    let set = |s: &ChallengeSpec| (s.source_fingerprint, s.source_len);
                    if set(&before) != set(spec) {
                        self.forget_images(spec.id)?;
                    }
                    self.state.put(challenge_key(spec.id), spec.as_ref());
                }
            }
            Order::RemoveChallenge(id) => self.remove_challenge(*id)?,
            // Looked at once more: other orders may have been carried out since.
            Order::SetParameters(parameters) if self.check_successor(parameters).is_err() => {}
            Order::SetParameters(parameters) => {
                self.frame.parameters = parameters.as_ref().clone();
                self.state.put(PARAMETERS.to_vec(), parameters.as_ref());
            }
            Order::SetRequiredVersion(a, b, c) => self.frame.meta.required_version = (*a, *b, *c),
            Order::SetOwner(owner) => self.frame.meta.owner = *owner,
            Order::Revoke(_) => {}
        }
        Ok(())
    }

    fn remove_challenge(&mut self, id: ChallengeId) -> Result<(), TxError> {
        self.void_rounds(id)?;
        self.forget_checks(id)?;
        self.forget_outliers(id)?;
        self.forget_images(id)?;
        self.state.delete_all(&history_prefix(id))?;
        self.state.delete_all(&asked_prefix(id))?;
        self.state.delete(challenge_key(id));
        Ok(())
    }
}
