//! The command that changes states of alerts, and reads of them.
//!
//! Never here: what a state means, which level is in force (see `crate::alert`). Invariant: states change only by a command that was made
//! from the last ones, so that two nodes that both take themselves for the leader never record a step twice.

use prost::Message as _;
use tidemark_proto::peer::{AlertChanges, AlertState, AlertsApplied, applied};

use super::apply::{Chunk, Outcome, code, failure};
use super::{Shard, keys};
use crate::store::{Family, StoreError};

impl Chunk<'_> {
    /// Takes new states, unless others were taken since they were made.
    pub(super) fn alerts(&mut self, changes: &AlertChanges) -> Outcome {
        let answer = |taken| {
            Ok(applied::Result::Alerts(AlertsApplied {
                taken,
                ..AlertsApplied::default()
            }))
        };
        if let Some(refused) = self.restoring() {
            return Err(refused);
        }
        if changes.base != self.state.alert_commands {
            return answer(false);
        }
        let unknown = |change: &&tidemark_proto::peer::AlertChange| change.ordinal >= self.state.next_ordinal;
        if let Some(change) = changes.changes.iter().find(unknown) {
            let message = format!("an alert of ordinal {}, which no device has", change.ordinal);
            return Err(failure(code::INTERNAL, "BAD_ALERT", message));
        }
        for change in &changes.changes {
            let key = keys::alert(change.type_number, change.ordinal, &change.profile);
            match &change.state {
                Some(state) => self.batch.put(Family::Meta, &key, &state.encode_to_vec()),
                None => self.batch.delete(Family::Meta, &key),
            }
        }
        self.state.alert_commands += 1;
        let count = self.state.alert_commands.to_be_bytes();
        self.batch.put(Family::Meta, keys::ALERT_COMMANDS, &count);
        answer(true)
    }
}

/// Reads of alerts at one point in time.
#[derive(Debug, Default)]
pub struct AlertStates {
    /// Commands that were taken before: the base of one that is made from these.
    pub base: u64,
    /// One per name, in order.
    pub states: Vec<Option<AlertState>>,
}

impl Shard {
    /// States of devices (type, ordinal) under profiles.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn alert_states<'n>(
        &self,
        names: impl IntoIterator<Item = (u32, u32, &'n str)>,
    ) -> Result<AlertStates, StoreError> {
        let names = names.into_iter();
        let keys: Vec<_> = names
            .map(|(type_number, ordinal, profile)| keys::alert(type_number, ordinal, profile))
            .collect();
        let view = self.store.db().view();
        let base = match view
            .multi_get(Family::Meta, &[keys::ALERT_COMMANDS], true)?
            .pop()
            .flatten()
        {
            Some(bytes) => keys::decode_u64(&bytes)?,
            None => 0,
        };
        let states = view.multi_get(Family::Meta, &keys, keys.is_sorted())?;
        let states = states
            .into_iter()
            .map(|state| state.map(|bytes| decode(&bytes)).transpose());
        Ok(AlertStates {
            base,
            states: states.collect::<Result<_, _>>()?,
        })
    }

    /// Type, ordinal and profile of states from a key on, at most `most`; ask again from the last one to go on.
    ///
    /// # Errors
    /// Corruption and I/O as found.
    pub fn alert_names(&self, behind: Option<&AlertName>, most: usize) -> Result<Vec<AlertName>, StoreError> {
        let view = self.store.db().view();
        let from = match behind {
            Some((type_number, ordinal, profile)) => {
                let mut key = keys::alert(*type_number, *ordinal, profile);
                key.push(0);
                key
            }
            None => keys::ALERTS.to_vec(),
        };
        let mut scan = view.scan(Family::Meta, &from, Some(keys::alerts_end()))?;
        let mut names = Vec::new();
        while let Some((key, _)) = scan.next()? {
            names.push(keys::decode_alert(key)?);
            if names.len() == most {
                break;
            }
        }
        Ok(names)
    }
}

/// Type, ordinal and profile of a state.
pub type AlertName = (u32, u32, String);

fn decode(bytes: &[u8]) -> Result<AlertState, StoreError> {
    AlertState::decode(bytes).map_err(|error| StoreError::Corruption(format!("state of an alert: {error}")))
}
