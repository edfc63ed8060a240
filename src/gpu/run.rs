//! Recordings: a plain list of dispatches and readbacks, replayed as often as needed. A run is one compute pass,
//! one submit and one wait.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::background::in_background;
use super::buffer::Buffer;
use super::device::{Device, Inner};
use super::fault::caught;
use super::kernel::{BindGroup, Kernel};
use crate::error::{Error, Result};

/// What a run does: all dispatches in order, each seeing the writes of those before it, then the readbacks.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The kernels to run.
    pub dispatches: Vec<Dispatch>,
    /// What to bring back to the host afterwards.
    pub readbacks: Vec<Readback>,
}

/// One kernel with its buffers.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Its buffers, bound with [`Device::bind`] to this kernel or one with bindings of the same kinds.
    pub bindings: Arc<BindGroup>,
    /// Workgroups per axis; none at all where one of them is 0.
    pub workgroups: [u32; 3],
}

/// A range of a buffer to bring back.
#[derive(Clone, Debug)]
pub struct Readback {
    /// The buffer.
    pub buffer: Buffer,
    /// Where the range begins.
    pub offset_bytes: u64,
    /// The range's size.
    pub size_bytes: u64,
}

/// Where a readback lies in the staging buffers.
pub(super) struct Slot {
    pub(super) staging: usize,
    pub(super) offset_bytes: u64,
    /// Bytes of the first word that were not asked for.
    pub(super) skip: usize,
    pub(super) size: usize,
}

/// A submitted run whose results have not been read.
pub(super) struct Flight {
    submission: wgpu::SubmissionIndex,
    /// Staging buffers and how much of each is used.
    staging: Vec<(wgpu::Buffer, u64)>,
    slots: Vec<Slot>,
    mapped: Receiver<Result<(), wgpu::BufferAsyncError>>,
}

/// For errors of a run as a whole.
const PLACE: &str = "run";

impl Device {
    /// Runs a recording and returns the bytes of its readbacks, in order.
    ///
    /// # Errors
    /// [`Error::Limit`] for a dispatch or readback outside the device's limits, named by its kernel or buffer, and
    /// what the device says. The device stays usable unless it is lost.
    pub fn run(&self, recording: &Recording) -> Result<Vec<Vec<u8>>> {
        self.0.land(self.0.launch(recording)?, None)
    }

    /// [`Device::run`] that waits for at most `limit`. What has not finished by then goes on all the same, and what is
    /// submitted later waits for it: see [`Device::settle`].
    ///
    /// # Errors
    /// As [`Device::run`]; [`Error::Device`] when the time is over.
    pub fn run_within(&self, recording: &Recording, limit: Duration) -> Result<Vec<Vec<u8>>> {
        self.0.land(self.0.launch(recording)?, Some(limit))
    }

    /// Whether all that was submitted has finished, after waiting for at most `limit`.
    ///
    /// # Errors
    /// The loss of the device.
    pub fn settle(&self, limit: Duration) -> Result<bool> {
        let poll = wgpu::PollType::Wait { submission_index: None, timeout: Some(limit) };
        let polled = caught(PLACE, || self.0.raw.poll(poll));
        self.0.faults.check()?;
        match polled? {
            Ok(_) => Ok(true),
            Err(wgpu::PollError::Timeout) => Ok(false),
            Err(error) => Err(Error::Device { place: PLACE.into(), message: error.to_string() }),
        }
    }

    /// [`Device::run`] for an executor: records and submits at the first poll; a thread of its own waits for the
    /// device.
    pub async fn run_async(&self, recording: &Recording) -> Result<Vec<Vec<u8>>> {
        let flight = self.0.launch(recording)?;
        let inner = Arc::clone(&self.0);
        in_background(PLACE, move || inner.land(flight, None))?.await
    }
}

impl Inner {
    /// Records and submits.
    fn launch(&self, recording: &Recording) -> Result<Flight> {
        self.check_dispatches(&recording.dispatches)?;
        let (slots, sizes) = self.lay_out(&recording.readbacks)?;
        let mut staging = Vec::with_capacity(sizes.len());
        for size_bytes in sizes {
            staging.push((self.staging(size_bytes)?, size_bytes));
        }
        let commands = self.scoped(PLACE, || {
            let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if !recording.dispatches.is_empty() {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                dispatch_all(&mut pass, &recording.dispatches);
            }
            for (readback, slot) in recording.readbacks.iter().zip(&slots) {
                let Some(words) = readback.buffer.words(readback.offset_bytes, readback.size_bytes) else {
                    continue;
                };
                if slot.size > 0 {
                    encoder.copy_buffer_to_buffer(
                        &readback.buffer.0.raw,
                        words.start,
                        &staging[slot.staging].0,
                        slot.offset_bytes,
                        words.end - words.start,
                    );
                }
            }
            encoder.finish()
        });
        match commands {
            Ok(commands) => self.submit(commands, staging, slots),
            Err(error) => {
                staging.into_iter().for_each(|(buffer, _)| self.staging.keep(buffer));
                Err(self.blame(&recording.dispatches).unwrap_or(error))
            }
        }
    }

    /// Submits commands that end with copies into staging buffers, and has these mapped.
    pub(super) fn submit(
        &self,
        commands: wgpu::CommandBuffer,
        staging: Vec<(wgpu::Buffer, u64)>,
        slots: Vec<Slot>,
    ) -> Result<Flight> {
        let (sender, mapped) = channel();
        let submission = self.scoped(PLACE, || self.queue.submit([commands]))?;
        self.uploads.submitted();
        self.scoped(PLACE, || {
            for (buffer, size_bytes) in &staging {
                let sender = sender.clone();
                // Nobody listens any more where the caller dropped its future.
                buffer.map_async(wgpu::MapMode::Read, ..*size_bytes, move |result| drop(sender.send(result)));
            }
        })?;
        Ok(Flight { submission, staging, slots, mapped })
    }

    /// Waits for a run, for at most `limit`, and reads its results.
    pub(super) fn land(&self, flight: Flight, limit: Option<Duration>) -> Result<Vec<Vec<u8>>> {
        let Flight { submission, staging, slots, mapped } = flight;
        self.wait(PLACE, submission, limit)?;
        for _ in &staging {
            self.wait_mapped(&mapped)?;
        }
        let results = self.scoped(PLACE, || -> Result<Vec<Vec<u8>>, wgpu::MapRangeError> {
            let mut views = Vec::with_capacity(staging.len());
            for (buffer, size_bytes) in &staging {
                views.push(buffer.get_mapped_range(..*size_bytes)?);
            }
            let read = |slot: &Slot| match views.get(slot.staging) {
                Some(view) => {
                    let start = slot.offset_bytes as usize + slot.skip;
                    view[start..start + slot.size].to_vec()
                }
                None => Vec::new(),
            };
            Ok(slots.iter().map(read).collect())
        })?;
        for (buffer, _) in staging {
            buffer.unmap();
            self.staging.keep(buffer);
        }
        results.map_err(|error| Error::Device { place: PLACE.into(), message: error.to_string() })
    }

    /// Waits until the device has finished a submission, for at most `limit`.
    pub(super) fn wait(
        &self,
        place: &str,
        submission: wgpu::SubmissionIndex,
        limit: Option<Duration>,
    ) -> Result<()> {
        let poll = wgpu::PollType::Wait { submission_index: Some(submission), timeout: limit };
        let polled = caught(place, || self.raw.poll(poll));
        // A lost device makes the poll panic; its loss is what to report.
        self.faults.check()?;
        match (polled?, limit) {
            (Ok(_), _) => Ok(()),
            (Err(wgpu::PollError::Timeout), Some(limit)) => {
                let message = format!("not finished after {limit:.1?}");
                Err(Error::Device { place: place.to_owned(), message })
            }
            (Err(error), _) => {
                // A submit to a device that was just lost fails in silence and its number means nothing; the
                // loss comes with the next poll.
                caught(place, || drop(self.raw.poll(wgpu::PollType::Poll)))?;
                self.faults.check()?;
                Err(Error::Device { place: place.to_owned(), message: error.to_string() })
            }
        }
    }

    /// Waits for a buffer to be mapped. Another thread's poll may have finished the submission and be about to
    /// say so.
    fn wait_mapped(&self, mapped: &Receiver<Result<(), wgpu::BufferAsyncError>>) -> Result<()> {
        loop {
            match mapped.recv_timeout(Duration::from_millis(20)) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                    self.faults.check()?;
                    let message = "the results could not be mapped".to_owned();
                    return Err(Error::Device { place: PLACE.into(), message });
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.faults.check()?;
                    let polled = caught(PLACE, || self.raw.poll(wgpu::PollType::Poll));
                    self.faults.check()?;
                    polled?
                        .map_err(|error| Error::Device { place: PLACE.into(), message: error.to_string() })?;
                }
            }
        }
    }

    /// Refuses what the device would refuse, by name.
    pub(super) fn check_dispatches(&self, dispatches: &[Dispatch]) -> Result<()> {
        let limit = self.info.caps.max_workgroups;
        for (i, dispatch) in dispatches.iter().enumerate() {
            if dispatch.workgroups.iter().any(|count| *count > limit) {
                let [x, y, z] = dispatch.workgroups;
                return Err(Error::limit(
                    named(i, dispatch),
                    format!("{x} x {y} x {z} workgroups, the device allows {limit} per axis"),
                ));
            }
            if dispatch.kernel.bindings() != dispatch.bindings.bindings {
                return Err(Error::limit(
                    named(i, dispatch),
                    format!(
                        "has bindings {:?}, got {:?}",
                        dispatch.kernel.bindings(),
                        dispatch.bindings.bindings
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Places the readbacks in as few staging buffers as the largest buffer allows, and gives their sizes.
    fn lay_out(&self, readbacks: &[Readback]) -> Result<(Vec<Slot>, Vec<u64>)> {
        let mut slots = Vec::with_capacity(readbacks.len());
        let mut sizes: Vec<u64> = Vec::new();
        for Readback { buffer, offset_bytes, size_bytes } in readbacks {
            let Some(words) = buffer.words(*offset_bytes, *size_bytes) else {
                return Err(Error::limit("readback", buffer.misfit(*offset_bytes, *size_bytes)));
            };
            let span_bytes = if *size_bytes == 0 { 0 } else { words.end - words.start };
            let fits = sizes.last().is_some_and(|used| used + span_bytes <= self.info.caps.max_buffer_bytes);
            if span_bytes > 0 && !fits {
                sizes.push(0);
            }
            let staging = sizes.len().saturating_sub(1);
            let size = usize::try_from(*size_bytes).map_err(|_| {
                Error::limit("readback", format!("{size_bytes} bytes exceed the host's memory"))
            })?;
            let skip = (offset_bytes % 4) as usize;
            let used = sizes.last().copied().unwrap_or(0);
            slots.push(Slot { staging, offset_bytes: used, skip, size });
            if let Some(last) = sizes.last_mut() {
                *last += span_bytes;
            }
        }
        Ok((slots, sizes))
    }

    /// The error of the first dispatch that cannot be recorded by itself, with its name. Errors of a pass come
    /// without one, so after a failure each dispatch is tried alone.
    pub(super) fn blame(&self, dispatches: &[Dispatch]) -> Option<Error> {
        dispatches.iter().enumerate().find_map(|(i, dispatch)| {
            let recorded = self.scoped(&named(i, dispatch), || {
                let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                dispatch_all(
                    &mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()),
                    std::slice::from_ref(dispatch),
                );
                encoder.finish()
            });
            recorded.err()
        })
    }
}

fn named(i: usize, dispatch: &Dispatch) -> String {
    format!("dispatch {i}, kernel {:?}", dispatch.kernel.label())
}

/// Records dispatches into a pass; the pipeline is set where it changes.
fn dispatch_all(pass: &mut wgpu::ComputePass<'_>, dispatches: &[Dispatch]) {
    let mut current = None;
    for dispatch in dispatches {
        record(pass, dispatch, &mut current);
    }
}

/// Records one dispatch; `current` is the kernel whose pipeline is set.
pub(super) fn record<'a>(
    pass: &mut wgpu::ComputePass<'_>,
    dispatch: &'a Dispatch,
    current: &mut Option<&'a Arc<Kernel>>,
) {
    let [x, y, z] = dispatch.workgroups;
    if x == 0 || y == 0 || z == 0 {
        return;
    }
    if !current.is_some_and(|kernel| Arc::ptr_eq(kernel, &dispatch.kernel)) {
        pass.set_pipeline(&dispatch.kernel.pipeline);
        *current = Some(&dispatch.kernel);
    }
    pass.set_bind_group(0, &dispatch.bindings.raw, &[]);
    pass.dispatch_workgroups(x, y, z);
}
