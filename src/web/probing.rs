//! What the device can do at best, measured by the host: the kernels to time, and what their times say.

use serde::Serialize;
use wasm_bindgen::prelude::wasm_bindgen;

use super::Core;
use super::json::{Fault, bindings, to_json};
use crate::error::{Error, Result};
use crate::tune::{FORMAT, Line, PeaksRecord, peaks_of, probes};

/// A probe as the host sees it.
#[derive(Serialize)]
struct ProbeText<'a> {
    label: &'a str,
    source: &'a str,
    bindings: Vec<&'static str>,
    buffer_bytes: &'a [u64],
    workgroups: u32,
}

#[wasm_bindgen]
impl Core {
    /// The adapter's peaks as the records have them: JSON, `null` where they have none.
    ///
    /// # Errors
    /// None that can happen.
    pub fn peaks(&self) -> Result<String, Fault> {
        Ok(to_json(&self.records.peaks(&self.platform))?)
    }

    /// The kernels that measure them: JSON.
    ///
    /// # Errors
    /// None that can happen.
    pub fn probes(&self) -> Result<String, Fault> {
        let probes = probes(&self.caps)?;
        let texts = probes.iter().map(|probe| ProbeText {
            label: &probe.shader.label,
            source: &probe.shader.source,
            bindings: bindings(&probe.shader),
            buffer_bytes: &probe.buffer_bytes,
            workgroups: probe.workgroups,
        });
        Ok(to_json(&texts.collect::<Vec<_>>())?)
    }

    /// What a dispatch of each probe took: the adapter's record, one line, which [`Core::peaks`] gives from now on.
    ///
    /// # Errors
    /// Without a time for each.
    pub fn probed(&mut self, ns: &[f64], unix_seconds: f64) -> Result<String, Fault> {
        let probes = probes(&self.caps)?;
        if ns.len() != probes.len() {
            return Err(
                Error::model("tune", format!("{} probes, times of {}", probes.len(), ns.len())).into()
            );
        }
        let measured: Vec<_> =
            probes.iter().zip(ns).map(|(probe, &ns)| (probe.measure, (ns as u64).max(1))).collect();
        let line = Line::Peaks(PeaksRecord {
            format: FORMAT,
            platform: self.platform.clone(),
            peaks: peaks_of(&measured),
            unix_seconds: unix_seconds as u64,
        });
        let text = line.text()?;
        self.records.insert(line);
        Ok(text)
    }
}
