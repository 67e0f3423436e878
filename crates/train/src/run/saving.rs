//! Saving: only a state that something can go on from.

use eval::answers::view;
use models::Pass;

use super::{Observer, Run};
use crate::state;
use crate::{Result, TrainError};

impl Run {
    pub(super) fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.check_weights()?;
        self.check_next_loss()?;
        state::save(&self.dir, &self.model, &self.optimizer, &self.progress)
            .map_err(|error| self.not_saved(error))?;
        self.saved = Some(self.progress.step);
        observer.on_save(&state::path(&self.dir));
        Ok(())
    }

    pub(super) fn save_model(&self) -> Result<()> {
        self.check_weights()?;
        self.model.save_trained(&self.dir).map_err(|error| self.not_saved(error.into()))
    }

    fn not_saved(&self, error: TrainError) -> TrainError {
        match error {
            TrainError::Model(source) => {
                TrainError::Save { source, step: self.progress.step, saved: self.saved }
            }
            other => other,
        }
    }

    /// Refuses to keep weights or moments that are not numbers: nothing could go on from them.
    fn check_weights(&self) -> Result<()> {
        let bad = |values: &[f32]| values.iter().copied().find(|value| !value.is_finite());
        let weight = self.model.trainable().iter().find_map(|(_, tensor)| bad(tensor.data()));
        let moments = self.optimizer.first.iter().chain(&self.optimizer.second);
        let moment = moments.filter_map(|values| bad(values)).next();
        for (what, value) in [("value of a weight", weight), ("value of a moment", moment)] {
            if let Some(value) = value {
                return Err(self.not_finite(what, value.into(), self.progress.step));
            }
        }
        Ok(())
    }

    /// Refuses to keep a state of finite weights that the last step has sent too far to compute with. The loss of the
    /// sequences that come next tells; the run goes on as if it had not been asked.
    pub(super) fn check_next_loss(&mut self) -> Result<()> {
        let position = self.batches.position().clone();
        let batch = self.batches.next_batch();
        self.batches.seek(&position);
        let batch = batch?;
        let loss = self.model.loss(&view(&batch), Pass::eval())?;
        let loss = loss.value / loss.weight;
        match loss.is_finite() {
            true => Ok(()),
            false => Err(self.not_finite("loss after the update", loss, self.progress.step)),
        }
    }
}
