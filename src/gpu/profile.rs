//! Times per dispatch, from the device's timestamp queries.

use super::device::{Device, Inner};
use super::run::{Dispatch, Recording, Slot, record};
use crate::error::{Error, Result};

/// The largest query set WebGPU allows.
const SET_QUERIES: usize = wgpu::QUERY_SET_MAX_QUERIES as usize;

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
        self.0.profile(&recording.dispatches).map(Some)
    }
}

impl Inner {
    fn profile(&self, dispatches: &[Dispatch]) -> Result<Vec<u64>> {
        self.check_dispatches(dispatches)?;
        let stamps = if self.raw.features().contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) {
            Stamps::Between
        } else {
            Stamps::PerPass
        };
        let set_bytes = (SET_QUERIES * STAMP_BYTES) as u64;
        let sets = dispatches.len().div_ceil(stamps.per_set());
        let size_bytes = set_bytes * sets as u64;
        let staging = self.staging(size_bytes)?;
        let commands = self.scoped("profile", || {
            let resolved = self.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("timestamps"),
                size: size_bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for (set, dispatches) in dispatches.chunks(stamps.per_set()).enumerate() {
                let count = stamps.queries(dispatches.len()) as u32;
                let queries = self.raw.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count,
                });
                match stamps {
                    Stamps::Between => stamp_between(&mut encoder, &queries, dispatches),
                    Stamps::PerPass => stamp_passes(&mut encoder, &queries, dispatches),
                }
                encoder.resolve_query_set(&queries, 0..count, &resolved, set as u64 * set_bytes);
            }
            encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, size_bytes);
            encoder.finish()
        });
        let commands = commands.map_err(|error| self.blame(dispatches).unwrap_or(error))?;
        let slot = Slot { staging: 0, offset_bytes: 0, skip: 0, size: sets * SET_QUERIES * STAMP_BYTES };
        let flight = self.submit(commands, vec![(staging, size_bytes)], vec![slot])?;
        let bytes = self.land(flight)?.pop().unwrap_or_default();

        let read: Vec<u64> = bytes
            .chunks_exact(STAMP_BYTES)
            .map(|stamp| stamp.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
            .collect();
        let tick_ns = f64::from(self.queue.get_timestamp_period());
        let elapsed_ns: Vec<u64> = dispatches
            .chunks(stamps.per_set())
            .zip(read.chunks(SET_QUERIES))
            .flat_map(|(dispatches, set)| stamps.ticks(&set[..stamps.queries(dispatches.len())]))
            .map(|ticks| (ticks as f64 * tick_ns) as u64)
            .collect();
        if elapsed_ns.len() == dispatches.len() {
            Ok(elapsed_ns)
        } else {
            let message = format!("{} times for {} dispatches", elapsed_ns.len(), dispatches.len());
            Err(Error::Device { place: "profile".into(), message })
        }
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
