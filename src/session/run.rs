//! Runs: stage by stage, until the outputs are there.

use std::collections::BTreeSet;

use super::prepared::{Prepared, StepTime};
use super::request::{Input, Outputs, Request};
use super::stages::Earlier;
use super::{Session, State, trace};
use crate::error::{Error, Result};
use crate::model::Given;
use crate::tensor::Tensor;

impl Session {
    /// Run the model: all inputs by name, in any order.
    ///
    /// # Errors
    /// [`Error::Input`] for a name, dtype or shape that does not fit; [`Error::Limit`] and [`Error::OutOfMemory`] for
    /// sizes beyond the device; [`Error::Device`].
    pub fn run(&self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        self.all_of(inputs).run()
    }

    /// [`Session::run`], waiting for the device without blocking.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn run_async(&self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        self.all_of(inputs).run_async().await
    }

    /// A run with inputs from the device, or outputs that stay there.
    pub fn request(&self) -> Request<'_> {
        Request::new(self)
    }

    pub(super) fn all_of<'a>(&'a self, inputs: &[(&'a str, &'a Tensor)]) -> Request<'a> {
        inputs.iter().fold(Request::new(self), |request, &(name, tensor)| request.input(name, tensor))
    }

    pub(super) fn run_request(&self, request: Request) -> Result<Outputs> {
        let _turn = self.turn();
        let mut state = self.lock();
        let wanted = request.kept()?;
        let feeds = self.feeds(&state, request)?;
        let (mut earlier, mut dispatches) = (Earlier::default(), 0);
        loop {
            let exact = state.model.exact_counts;
            let Some(prepared) = self.ready(&mut state, &feeds, &earlier)? else {
                (earlier, dispatches) = (Earlier::default(), 0);
                continue;
            };
            self.tune_first(prepared, &feeds)?;
            let keep = kept(prepared, &wanted);
            let mut run = prepared.start(&self.device, &feeds, &keep, self.progress())?;
            let read = match self.device.run(&run.recording) {
                Ok(read) => read,
                Err(error) => {
                    // Stored winners may have been measured by another build of the driver.
                    if !prepared.mend(&self.device, &run)? {
                        return Err(error);
                    }
                    run = prepared.start(&self.device, &feeds, &keep, self.progress())?;
                    self.device.run(&run.recording)?
                }
            };
            let outputs = prepared.finish(&self.device, &run, read)?;
            trace::time(&self.device, prepared, &run)?;
            self.offer(prepared, &run, &feeds);
            dispatches += run.recording.dispatches.len();
            if prepared.plan.next.is_none() {
                state.last_dispatches = dispatches;
                return Ok(outputs);
            }
            earlier.add(prepared, &run, &outputs, exact)?;
        }
    }

    pub(super) async fn run_request_async(&self, request: Request<'_>) -> Result<Outputs> {
        // The lock is not held while waiting: the plan's buffers are taken out for the run, and a run that
        // starts meanwhile makes its own.
        let _turn = self.turn();
        let wanted = request.kept()?;
        let feeds = self.feeds(&self.lock(), request)?;
        let (mut earlier, mut dispatches) = (Earlier::default(), 0);
        loop {
            let mut planned = {
                let mut state = self.lock();
                let Some(prepared) = self.ready(&mut state, &feeds, &earlier)? else {
                    (earlier, dispatches) = (Earlier::default(), 0);
                    continue;
                };
                self.tune_first(prepared, &feeds)?;
                state.model.take_latest()?
            };
            let prepared = &mut planned.kept;
            let keep = kept(prepared, &wanted);
            let run = prepared.start(&self.device, &feeds, &keep, self.progress())?;
            let read = self.device.run_async(&run.recording).await?;
            let outputs = prepared.finish(&self.device, &run, read)?;
            trace::time(&self.device, prepared, &run)?;
            self.offer(prepared, &run, &feeds);
            dispatches += run.recording.dispatches.len();
            let State { model, weights, last_dispatches } = &mut *self.lock();
            let is_last = prepared.plan.next.is_none();
            if is_last {
                *last_dispatches = dispatches;
            } else {
                earlier.add(prepared, &run, &outputs, model.exact_counts)?;
            }
            model.keep(planned);
            weights.retain(model.plans().iter().map(|planned| planned.plan.as_ref()));
            if is_last {
                return Ok(outputs);
            }
        }
    }

    /// Run once and time every dispatch; `None` where the device has no timestamps.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn profile(&self, inputs: &[(&str, &Tensor)]) -> Result<Option<Vec<StepTime>>> {
        let _turn = self.turn();
        let mut state = self.lock();
        let feeds = self.feeds(&state, self.all_of(inputs))?;
        let (mut earlier, mut all) = (Earlier::default(), Vec::new());
        loop {
            let exact = state.model.exact_counts;
            let Some(prepared) = self.ready(&mut state, &feeds, &earlier)? else {
                (earlier, all) = (Earlier::default(), Vec::new());
                continue;
            };
            let run = prepared.start(&self.device, &feeds, &BTreeSet::new(), self.progress())?;
            let Some(times) = self.device.profile(&run.recording)? else { return Ok(None) };
            all.extend(prepared.step_times(&run, &times));
            if prepared.plan.next.is_none() {
                return Ok(Some(all));
            }
            let read = self.device.run(&run.recording)?;
            let outputs = prepared.finish(&self.device, &run, read)?;
            earlier.add(prepared, &run, &outputs, exact)?;
        }
    }

    /// The inputs in the model's order, checked against its declarations.
    pub(super) fn feeds<'a>(&self, state: &State, request: Request<'a>) -> Result<Vec<Input<'a>>> {
        let given = request.inputs;
        let described: Vec<Given> = given
            .iter()
            .map(|(name, input)| Given { name, dtype: input.dtype(), shape: input.shape() })
            .collect();
        let order = state.model.order(&described)?;
        for (name, input) in &given {
            if let Some(tensor) = input.on_device()
                && !tensor.device().is_same(&self.device)
            {
                let (there, here) = (tensor.device().info(), self.adapter());
                let message = format!("is on another device, of {there}; the session's is of {here}");
                return Err(Error::input(name.clone(), message));
            }
        }
        let mut inputs: Vec<Option<Input>> = given.into_iter().map(|(_, input)| Some(input)).collect();
        Ok(order.into_iter().filter_map(|position| inputs[position].take()).collect())
    }
}

/// The outputs that a stage leaves to the caller: only the last one's are the model's.
fn kept(prepared: &Prepared, wanted: &BTreeSet<usize>) -> BTreeSet<usize> {
    if prepared.plan.next.is_none() { wanted.clone() } else { BTreeSet::new() }
}
