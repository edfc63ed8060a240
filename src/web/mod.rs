//! The core as the browser's host sees it: a model and its plans, as text and words. The host (`web/src/core.ts`) owns
//! the device and everything on it.
//!
//! Structures cross as JSON, bytes and words as typed arrays. An error crosses as text: its kind, a line break, its
//! message.

mod finals;
mod json;
mod probing;
mod tuning;

use std::collections::BTreeMap;

use wasm_bindgen::prelude::wasm_bindgen;

use crate::commands::{self, Keep, Kernels, Produced, Recorder, encode, outputs, to_device};
use crate::error::{Error, Result};
use crate::graph::ValueInfo;
use crate::ir::Stop;
use crate::kernel::{Caps, KernelSpec, Schedule, broken_rule, default_schedule, storage_bytes, stored};
use crate::model::{Computed, Given, Model, Precision};
use crate::onnx;
use crate::plan::{Origin, Plan, Source, SymbolValues, bound_bytes};
use crate::tensor::Tensor;
use crate::tune::{Key, Platform, Records};
use crate::wgsl::{Dialect, Target};
use finals::Playing;
use json::{
    Constant, Declared, Fault, Feed, Kernel, Options, Output, Place, Ready, Stays, bindings, dtype_named,
    from_json, to_json,
};
use tuning::{Job, Race};

/// What the core keeps with a plan.
struct Kept {
    number: u32,
    kernels: Kernels,
}

/// A model ready to be run by a host.
#[wasm_bindgen]
pub struct Core {
    model: Model<Kept>,
    caps: Caps,
    plans_made: u32,
    given: BTreeMap<usize, Vec<u8>>,
    words: Vec<u32>,
    known: Vec<Option<Tensor>>,
    platform: Platform,
    records: Records,
    /// Plan and sizes of the run prepared last.
    last: Option<(u32, SymbolValues)>,
    /// Where that is a stage, the shapes of its tensors.
    stage_shapes: Vec<Vec<usize>>,
    /// The outputs of the stage that were handed on so far.
    handed: Vec<Tensor>,
    /// What the earlier stages of the run at hand found out.
    computed: Computed,
    jobs: Vec<Job>,
    race: Option<Race>,
    playing: Option<Playing>,
}

#[wasm_bindgen]
impl Core {
    /// Parse a model whose large tensors are external data. `options` is JSON.
    ///
    /// # Errors
    /// As `onnx::parse`; `unsupported` with everything that is not supported at once.
    #[wasm_bindgen(constructor)]
    pub fn new(model: Vec<u8>, options: &str) -> Result<Core, Fault> {
        let options: Options = from_json(options)?;
        let graph = onnx::parse(model.into(), &onnx::Elsewhere)?;
        let (caps, platform) = (options.caps(), options.platform());
        let precision = Precision { f64_as_f32: options.allow_f64_as_f32, f16_sums: options.f16_sums };
        Ok(Core {
            model: Model::new(graph, options.dims, precision)?,
            caps,
            platform,
            plans_made: 0,
            given: BTreeMap::new(),
            words: Vec::new(),
            known: Vec::new(),
            records: Records::default(),
            last: None,
            stage_shapes: Vec::new(),
            handed: Vec::new(),
            computed: Computed::default(),
            jobs: Vec::new(),
            race: None,
            playing: None,
        })
    }

    /// The model's inputs and outputs as it declares them: JSON.
    ///
    /// # Errors
    /// None that can happen.
    pub fn describe(&self) -> Result<String, Fault> {
        let list = |infos: &[ValueInfo]| to_json(&infos.iter().map(Declared::from).collect::<Vec<_>>());
        let (inputs, outputs) = (list(&self.model.graph.inputs)?, list(&self.model.graph.outputs)?);
        Ok(format!("{{\"inputs\":{inputs},\"outputs\":{outputs}}}"))
    }

    /// Plan ahead of the first run, where that is possible without its inputs: the plan's number, if so.
    ///
    /// # Errors
    /// As `plan::plan`.
    pub fn plan_ahead(&mut self) -> Result<Option<u32>, Fault> {
        let (caps, plans_made) = (&self.caps, &mut self.plans_made);
        self.model.plan_ahead(caps, &mut |_| Ok(kept(plans_made)))?;
        Ok(self.model.plans().last().map(|planned| planned.kept.number))
    }

    /// The contents of input `input` for the next [`Core::prepare`], where that asks for them.
    pub fn give(&mut self, input: usize, contents: Vec<u8>) {
        self.given.insert(input, contents);
    }

    /// Begin a run anew, at its first stage.
    pub fn begin(&mut self) {
        self.computed = Computed::default();
    }

    /// The elements of the next output of the stage prepared last. After all of them [`Core::prepare`] is for the stage
    /// behind it.
    ///
    /// # Errors
    /// For what is no stage's output.
    pub fn hand_on(&mut self, output: Vec<u8>) -> Result<(), Fault> {
        let nothing = || Error::model("session", "no stage was prepared");
        let (number, symbols) = self.last.clone().ok_or_else(nothing)?;
        let plan = planned(&mut self.model, number)?.plan.clone();
        let is_stage = plan.next.is_some();
        let read = plan.outputs.get(self.handed.len()).filter(|_| is_stage).ok_or_else(nothing)?;
        let shape = crate::plan::shape(&read.shape, &symbols, &read.name)?;
        self.handed.push(Tensor::new(read.dtype, &shape, output)?);
        if self.handed.len() == plan.outputs.len() {
            let (exact, shapes) = (self.model.exact_counts, std::mem::take(&mut self.stage_shapes));
            let handed = std::mem::take(&mut self.handed);
            self.computed.add(&plan, &handed.iter().collect::<Vec<_>>(), &shapes, exact);
        }
        Ok(())
    }

    /// Write down a run with such inputs and with outputs that stay on the device, or the stage of it that is next: JSON
    /// both ways. [`Core::words`] and [`Core::known_output`] then hold for it.
    ///
    /// # Errors
    /// As the native `Session::run`.
    pub fn prepare(&mut self, feeds: &str, stay: &str) -> Result<String, Fault> {
        let (feeds, stay): (Vec<Feed>, Vec<Stays>) = (from_json(feeds)?, from_json(stay)?);
        let mut given = Vec::new();
        for feed in &feeds {
            let dtype = dtype_named(&feed.r#type)?;
            given.push(Given { name: &feed.name, dtype, shape: &feed.shape });
        }
        let order = self.model.order(&given)?;
        let shapes: Vec<Vec<usize>> = order.iter().map(|&i| feeds[i].shape.clone()).collect();
        let contents = std::mem::take(&mut self.given);
        let contents = |i: usize| {
            let bytes = contents.get(&i)?.clone();
            Tensor::new(given[order[i]].dtype, &shapes[i], bytes).ok()
        };
        let (caps, plans_made) = (&self.caps, &mut self.plans_made);
        match self.model.ready(&shapes, &contents, &self.computed, caps, &mut |_| Ok(kept(plans_made))) {
            Ok(Some(_)) => {}
            Ok(None) => {
                self.begin();
                return Ok(to_json(&Ready::Again { again: true })?);
            }
            Err(Stop::NeedsInputs(needs)) => {
                return Ok(to_json(&Ready::Needs { needs: needs.into_iter().collect() })?);
            }
            Err(Stop::NeedsShapes | Stop::NeedsValue(_)) => {
                return Err(Error::model("session", "the plan wants shapes that are given").into());
            }
            Err(Stop::Error(error)) => return Err(error.into()),
        }
        let by_contents = self.model.depends_on_contents();
        let choose = chooser(&self.records, &self.platform, &self.caps);
        let live = self.model.plans().iter().map(|planned| planned.kept.number).collect();
        let planned = self.model.latest()?;
        let all_shapes: Vec<Vec<usize>> = shapes.into_iter().chain(self.computed.shapes()).collect();
        let (plan, symbols) = (planned.plan.clone(), planned.plan.symbol_values(&all_shapes));
        let is_stage = plan.next.is_some();
        let inputs = (0..order.len()).filter(|&input| feeds[order[input]].lent).collect();
        let mut keep = Keep { inputs, ..Keep::default() };
        if !is_stage {
            stay_in(&plan, &symbols, &self.caps, &order, &stay, &mut keep)?;
        }
        let (commands, layout) =
            recorder(&plan, &self.caps, &choose, &mut planned.kept.kernels, |r| r.run(&symbols, &keep))?;
        self.handed.clear();
        self.stage_shapes = if is_stage { layout.shapes } else { Vec::new() };
        self.words = encode(&commands)?;
        self.known.clear();
        let floats = self.caps.floats();
        let mut described = Vec::new();
        for (number, (output, produced)) in plan.outputs.iter().zip(outputs(&plan, &symbols)?).enumerate() {
            let (shape, stored, known) = match produced {
                Produced::Known(tensor) => (tensor.shape().to_vec(), None, Some(tensor)),
                Produced::Read { shape } => (shape, Some(stored(output.dtype, floats).name()), None),
            };
            let (name, r#type) = (output.name.as_str(), output.dtype.name());
            described.push(Output { name, r#type, shape, stored, kept: keep.outputs.contains(&number) });
            self.known.push(known);
        }
        let held = |tensor: &Option<usize>| tensor.map(|t| stored(plan.tensors[t].dtype, floats).name());
        let inputs = plan.inputs.iter().map(held).collect();
        let number = planned.kept.number;
        self.last = Some((number, symbols));
        let outputs = described;
        Ok(to_json(&Ready::Run { plan: number, live, order, inputs, by_contents, is_stage, outputs })?)
    }

    /// The commands of the run prepared last.
    pub fn words(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.words)
    }

    /// The elements of an output of the run prepared last that is known beforehand.
    pub fn known_output(&self, output: usize) -> Vec<u8> {
        let known = self.known.get(output).and_then(Option::as_ref);
        known.map_or_else(Vec::new, |tensor| tensor.bytes().to_vec())
    }

    /// The commands that compute what depends on a plan's constants alone.
    ///
    /// # Errors
    /// As the native `Session::load`.
    pub fn once(&mut self, plan: u32) -> Result<Vec<u32>, Fault> {
        let choose = chooser(&self.records, &self.platform, &self.caps);
        let planned = planned(&mut self.model, plan)?;
        let commands = recorder(&planned.plan, &self.caps, &choose, &mut planned.kept.kernels, |r| r.once())?;
        Ok(encode(&commands)?)
    }

    /// The constants of a plan: JSON.
    ///
    /// # Errors
    /// For a plan that is no longer kept, and for a constant larger than the device's largest buffer.
    pub fn constants(&mut self, plan: u32) -> Result<String, Fault> {
        let (floats, limit) = (self.caps.floats(), self.caps.max_buffer_bytes);
        let plan = self.planned(plan)?.plan.clone();
        let mut constants = Vec::new();
        for (number, tensor) in plan.tensors.iter().enumerate() {
            let Origin::Weight(data) = &tensor.origin else { continue };
            let device_bytes = bound_bytes(data.len(), storage_bytes(tensor.dtype, floats));
            if device_bytes > limit {
                let shape = data.shape();
                let message = format!(
                    "weight of shape {shape:?} takes {device_bytes} bytes, the device's largest buffer {limit}"
                );
                return Err(Error::limit(format!("tensor {:?}", tensor.name), message).into());
            }
            let place = data.place().map(|place| Place {
                file: &place.file,
                offset: place.offset_bytes,
                bytes: place.len_bytes,
            });
            constants.push(Constant {
                tensor: number,
                name: &tensor.name,
                r#type: data.dtype().name(),
                stored: stored(tensor.dtype, floats).name(),
                elements: data.len(),
                device_bytes,
                place,
            });
        }
        Ok(to_json(&constants)?)
    }

    /// A constant that is in memory, in its form on the device.
    ///
    /// # Errors
    /// As [`convert`].
    pub fn constant(&mut self, plan: u32, tensor: usize) -> Result<Vec<u8>, Fault> {
        let floats = self.caps.floats();
        let plan = self.planned(plan)?.plan.clone();
        let tensor = plan.tensors.get(tensor).map(|tensor| (tensor, &tensor.origin));
        let Some((tensor, Origin::Weight(data))) = tensor else {
            return Err(Error::model("session", "there is no such constant").into());
        };
        Ok(to_device(&tensor.name, data, tensor.dtype, floats)?.into_owned())
    }

    /// A kernel of a plan, by the number that its commands have for it: JSON.
    ///
    /// # Errors
    /// For one that does not exist.
    pub fn kernel(&mut self, plan: u32, number: usize) -> Result<String, Fault> {
        let planned = self.planned(plan)?;
        let text = planned.kept.kernels.texts().get(number);
        let text = text.ok_or_else(|| Error::model("session", format!("there is no kernel {number}")))?;
        let shader = &text.rendered.shader;
        Ok(to_json(&Kernel {
            label: &shader.label,
            schedule: text.schedule.to_string(),
            source: &shader.source,
            bindings: bindings(shader),
        })?)
    }

    /// The name of the value that a step of a plan computes.
    ///
    /// # Errors
    /// For one that does not exist.
    pub fn step_output(&mut self, plan: u32, step: usize) -> Result<String, Fault> {
        let plan = self.planned(plan)?.plan.clone();
        let step = plan.steps.get(step).map(|step| plan.tensors[step.output].name.clone());
        Ok(step.ok_or_else(|| Error::model("session", "there is no such step"))?)
    }

    /// A plan as text.
    ///
    /// # Errors
    /// For one that is no longer kept.
    pub fn plan_text(&mut self, plan: u32) -> Result<String, Fault> {
        Ok(self.planned(plan)?.plan.to_string())
    }

    fn planned(&mut self, number: u32) -> Result<&mut crate::model::Planned<Kept>> {
        planned(&mut self.model, number)
    }
}

/// `count` elements of one dtype as another: between ONNX's form and the device's.
///
/// # Errors
/// `limit`, naming the tensor, where there is no such conversion.
#[wasm_bindgen]
pub fn convert(name: &str, from: &str, bytes: &[u8], to: &str, count: usize) -> Result<Vec<u8>, Fault> {
    Ok(commands::convert(name, dtype_named(from)?, bytes, dtype_named(to)?, count)?)
}

fn kept(plans_made: &mut u32) -> Kept {
    *plans_made += 1;
    Kept { number: *plans_made - 1, kernels: Kernels::default() }
}

fn planned(model: &mut Model<Kept>, number: u32) -> Result<&mut crate::model::Planned<Kept>> {
    let missing = || Error::model("session", format!("plan {number} is no longer kept"));
    model.plans_mut().iter_mut().find(|planned| planned.kept.number == number).ok_or_else(missing)
}

/// Adds the outputs that stay in memory of the caller's to `keep`, and the steps that are done in place.
fn stay_in(
    plan: &Plan,
    symbols: &SymbolValues,
    caps: &Caps,
    order: &[usize],
    stay: &[Stays],
    keep: &mut Keep,
) -> Result<()> {
    let over: BTreeMap<usize, Option<usize>> = stay.iter().map(|s| (s.output, s.over)).collect();
    let outputs = over.keys().copied().filter(|&output| output < plan.outputs.len()).collect();
    let takes_over = |input: usize, output: usize| {
        keep.inputs.contains(&input) && over[&output].is_some_and(|feed| order.get(input) == Some(&feed))
    };
    keep.in_place = plan.in_place(symbols, caps, &outputs, takes_over)?;
    // What is not an update of the tensor in whose memory it is to be cannot be written there while that is read.
    let is_made = |output: usize| {
        let updates = keep.in_place.iter().filter_map(|step| plan.updates.get(step));
        let mut made = updates.map(|update| update.step.output);
        matches!(plan.outputs[output].source, Source::Device(t) if made.any(|output| output == t))
    };
    keep.outputs = outputs.into_iter().filter(|&n| over[&n].is_none() || is_made(n)).collect();
    Ok(())
}

/// The schedule that was measured to be the fastest, where there is one and it is legal here, else the default.
fn chooser<'a>(
    records: &'a Records,
    platform: &'a Platform,
    caps: &'a Caps,
) -> impl Fn(&KernelSpec, &[i64]) -> Schedule + 'a {
    move |spec, sizes| {
        if !records.is_empty()
            && let Some(winner) = records.winner(&Key::new(spec, sizes, platform))
            && broken_rule(spec, winner, sizes, caps).is_none()
        {
            return winner.clone();
        }
        default_schedule(spec, sizes, caps)
    }
}

/// What `record` makes of a plan.
fn recorder<T>(
    plan: &Plan,
    caps: &Caps,
    choose: &dyn Fn(&KernelSpec, &[i64]) -> Schedule,
    kernels: &mut Kernels,
    record: impl FnOnce(&mut Recorder) -> Result<T>,
) -> Result<T> {
    let target = Target::new(caps, Dialect::Browser);
    record(&mut Recorder { plan, caps, target, choose, kernels })
}
