//! The owner's orders: agreed in one block, in force from a stated height on.
//!
//! An order that was agreed waits in the state under its height and nonce. At the beginning of the
//! block of that height all orders due are carried out in the order of their nonces. One that makes no
//! sense any more (a challenge to be added that is there by then) does nothing.

use perturb_types::ChallengeId;

use crate::execute::{Executor, TxError};
use crate::genesis::{ChallengeSpec, GenesisError, MAX_CHALLENGES};
use crate::state::{self, PARAMETERS, challenge_key, history_prefix, order_key, order_nonce, order_prefix};
use crate::store::StateStore;
use crate::tx::{Order, OwnerAction};

/// Blocks by which an order may be ahead: months.
const MAX_AHEAD: u64 = 10_000_000;

/// Orders that may wait.
const MAX_WAITING: usize = 64;

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
        if action.effective <= height || action.effective - height > MAX_AHEAD {
            return invalid(format!(
                "its height {} must lie in {}..={}",
                action.effective,
                height + 1,
                height + MAX_AHEAD
            ));
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
            }
            Order::UpdateChallenge(spec) => {
                sane(spec.validate())?;
                self.spec(spec.id)?;
            }
            Order::RemoveChallenge(id) => {
                self.spec(*id)?;
            }
            Order::SetParameters(parameters) => sane(parameters.validate())?,
            Order::SetRequiredVersion(..) | Order::Revoke(_) | Order::SetOwner(_) => {}
        }
        Ok(())
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
                if self.has_room_for(spec)? {
                    self.state.put(challenge_key(spec.id), spec.as_ref());
                }
            }
            Order::UpdateChallenge(spec) => {
                if self.state.has(&challenge_key(spec.id))? {
                    // They were asked under the old rules and cannot be judged by the new.
                    self.void_rounds(spec.id)?;
                    self.forget_checks(spec.id)?;
                    self.state.put(challenge_key(spec.id), spec.as_ref());
                }
            }
            Order::RemoveChallenge(id) => self.remove_challenge(*id)?,
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
        for (key, _) in self.state.scan(&history_prefix(id))? {
            self.state.delete(key);
        }
        self.state.delete(challenge_key(id));
        Ok(())
    }
}
