//! Times per dispatch, from the device's timestamp queries.

use std::time::Duration;

use super::device::{Device, Inner};
use super::run::{Dispatch, Recording, Slot, record};
use crate::error::{Error, Result};

/// The largest query set WebGPU allows.
const SET_QUERIES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize;

/// Passes of nothing whose timestamps show the clock's steps.
const EMPTY_PASSES: u32 = 64;

/// Bytes of a timestamp.
const STAMP_BYTES: usize = size_of::<u64>();

/// How the dispatches are timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stamps {
    /// One pass as in a run, and a timestamp after each dispatch: `n + 1` for `n` of them.
    Between,
    /// A pass per dispatch, and a timestamp at both of its ends: `2 n`.
    PerPass,
}

impl Stamps {
    /// Dispatches per query set.
    fn per_set(self) -> usize {
        match self {
            Stamps::Between => SET_QUERIES - 1,
            Stamps::PerPass => SET_QUERIES / 2,
        }
    }

    /// Queries for this many dispatches of a set.
    fn queries(self, dispatches: usize) -> usize {
        match self {
            Stamps::Between => dispatches + 1,
            Stamps::PerPass => 2 * dispatches,
        }
    }

    /// Ticks per dispatch of a set.
    fn ticks(self, stamps: &[u64]) -> Vec<u64> {
        match self {
            Stamps::Between => stamps.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect(),
            Stamps::PerPass => stamps.chunks_exact(2).map(|pair| pair[1].saturating_sub(pair[0])).collect(),
        }
    }
}

impl Device {
    /// Runs the dispatches of a recording, without its readbacks, and returns the nanoseconds each took on the
    /// device; `None` where the device has no timestamps. Some drivers compile a kernel at its first dispatch:
    /// run the recording once before.
    ///
    /// # Errors
    /// As [`Device::run`].
    pub fn profile(&self, recording: &Recording) -> Result<Option<Vec<u64>>> {
        if !self.caps().timestamps {
            return Ok(None);
        }
        if recording.dispatches.is_empty() {
            return Ok(Some(Vec::new()));
        }
        self.0.profile(&recording.dispatches, None).map(Some)
    }

    /// [`Device::profile`] that waits for at most `limit`, as [`Device::run_within`] does.
    ///
    /// # Errors
    /// As [`Device::run_within`].
    pub fn profile_within(&self, recording: &Recording, limit: Duration) -> Result<Option<Vec<u64>>> {
        if !self.caps().timestamps || recording.dispatches.is_empty() {
            return self.profile(recording);
        }
        self.0.profile(&recording.dispatches, Some(limit)).map(Some)
    }

    /// The smallest difference of two times that the device's clock shows, in nanoseconds; `None` where the device has
    /// no timestamps. Clocks count in steps of anything from a nanosecond to, in browsers, a tenth of a millisecond.
    ///
    /// # Errors
    /// What the device says.
    pub fn clock_ns(&self) -> Result<Option<u64>> {
        if !self.caps().timestamps {
            return Ok(None);
        }
        let inner = &self.0;
        let tick_ns = f64::from(inner.queue.get_timestamp_period());
        let stamps = inner.stamps(&[2 * EMPTY_PASSES as usize], None, |_, encoder, queries| {
            for i in 0..EMPTY_PASSES {
                drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: queries,
                        beginning_of_pass_write_index: Some(2 * i),
                        end_of_pass_write_index: Some(2 * i + 1),
                    }),
                }));
            }
        })?;
        let mut sorted = stamps.concat();
        sorted.sort_unstable();
        let steps = sorted.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0);
        let ticks = steps.min().unwrap_or(1);
        Ok(Some(((ticks as f64 * tick_ns).ceil() as u64).max(1)))
    }
}

impl Inner {
    fn profile(&self, dispatches: &[Dispatch], limit: Option<Duration>) -> Result<Vec<u64>> {
        self.check_dispatches(dispatches)?;
        let stamps = if self.raw.features().contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) {
            Stamps::Between
        } else {
            Stamps::PerPass
        };
        let parts: Vec<&[Dispatch]> = dispatches.chunks(stamps.per_set()).collect();
        let counts: Vec<usize> = parts.iter().map(|part| stamps.queries(part.len())).collect();
        let read = self.stamps(&counts, limit, |set, encoder, queries| match stamps {
            Stamps::Between => stamp_between(encoder, queries, parts[set]),
            Stamps::PerPass => stamp_passes(encoder, queries, parts[set]),
        });
        let read = read.map_err(|error| self.blame(dispatches).unwrap_or(error))?;
        let tick_ns = f64::from(self.queue.get_timestamp_period());
        let ticks = read.iter().flat_map(|set| stamps.ticks(set));
        let elapsed_ns: Vec<u64> = ticks.map(|ticks| (ticks as f64 * tick_ns) as u64).collect();
        if elapsed_ns.len() == dispatches.len() {
            Ok(elapsed_ns)
        } else {
            let message = format!("{} times for {} dispatches", elapsed_ns.len(), dispatches.len());
            Err(Error::Device { place: "profile".into(), message })
        }
    }

    /// The timestamps of query sets of `counts` queries, all of which `record` writes.
    fn stamps(
        &self,
        counts: &[usize],
        limit: Option<Duration>,
        mut record: impl FnMut(usize, &mut wgpu::CommandEncoder, &wgpu::QuerySet),
    ) -> Result<Vec<Vec<u64>>> {
        let set_bytes = (SET_QUERIES * STAMP_BYTES) as u64;
        let size_bytes = set_bytes * counts.len() as u64;
        let staging = self.staging(size_bytes)?;
        let commands = self.scoped("profile", || {
            let resolved = self.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: size_bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for (set, &count) in counts.iter().enumerate() {
                let queries = self.raw.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: count as u32,
                });
                record(set, &mut encoder, &queries);
                encoder.resolve_query_set(&queries, 0..count as u32, &resolved, set as u64 * set_bytes);
            }
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, size_bytes);
            encoder.finish()
        })?;
        let slot =
            Slot { staging: 0, offset_bytes: 0, skip: 0, size: counts.len() * SET_QUERIES * STAMP_BYTES };
        let flight = self.submit(commands, vec![(staging, size_bytes)], vec![slot])?;
        let bytes = self.land(flight, limit)?.pop().unwrap_or_default();
        let read: Vec<u64> = bytes
            .chunks_exact(STAMP_BYTES)
            .map(|stamp| stamp.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
            .collect();
        let sets = read.chunks(SET_QUERIES).zip(counts);
        Ok(sets.map(|(set, &count)| set[..count].to_vec()).collect())
    }
}

fn stamp_between(encoder: &mut wgpu::CommandEncoder, queries: &wgpu::QuerySet, dispatches: &[Dispatch]) {
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    let mut current = None;
    pass.write_timestamp(queries, 0);
    for (dispatch, i) in dispatches.iter().zip(1..) {
        record(&mut pass, dispatch, &mut current);
        pass.write_timestamp(queries, i);
    }
}

fn stamp_passes(encoder: &mut wgpu::CommandEncoder, queries: &wgpu::QuerySet, dispatches: &[Dispatch]) {
    // A dispatch of no workgroups gets its pass too: every query that is resolved must have been written.
    for (dispatch, i) in dispatches.iter().zip(0..) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: queries,
                beginning_of_pass_write_index: Some(2 * i),
                end_of_pass_write_index: Some(2 * i + 1),
            }),
        });
        record(&mut pass, dispatch, &mut None);
    }
}
