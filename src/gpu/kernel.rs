//! Kernels: compiled once per source and device, and the buffers bound to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::buffer::Buffer;
use super::checks::Checks;
use super::device::{Device, Inner};
use super::{locked, padded};
use crate::error::{Error, Result};
use crate::wgsl::{BindingKind, Shader};

/// A compiled kernel.
#[derive(Debug)]
pub struct Kernel {
    pub(super) pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    label: String,
    bindings: Vec<BindingKind>,
}

impl Kernel {
    /// The name of the shader it was first compiled from.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The kinds of its bindings 0, 1, ...
    pub fn bindings(&self) -> &[BindingKind] {
        &self.bindings
    }
}

/// A range of a buffer, for one binding of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The buffer.
    pub buffer: &'a Buffer,
    /// Where the range begins: a multiple of the device's alignment.
    pub offset_bytes: u64,
    /// The range's size; one that is no multiple of 4 is rounded up to it.
    pub size_bytes: u64,
}

impl<'a> Binding<'a> {
    /// All of a buffer.
    pub fn whole(buffer: &'a Buffer) -> Self {
        Binding { buffer, offset_bytes: 0, size_bytes: buffer.size_bytes() }
    }
}

/// Buffers bound to a kernel. Keeps them alive.
#[derive(Debug)]
pub struct BindGroup {
    pub(super) raw: wgpu::BindGroup,
    pub(super) bindings: Vec<BindingKind>,
}

/// The kernels in use on a device, by source and then by bindings.
#[derive(Debug, Default)]
pub(super) struct Kernels(Mutex<HashMap<String, Vec<Weak<Kernel>>>>);

impl Kernels {
    fn find(&self, shader: &Shader) -> Option<Arc<Kernel>> {
        let kernels = locked(&self.0);
        let same_source = kernels.get(&shader.source)?;
        same_source.iter().filter_map(Weak::upgrade).find(|kernel| kernel.bindings == shader.bindings)
    }

    /// Enters a kernel that was just compiled, or returns the one another thread entered in the meantime.
    fn enter(&self, shader: &Shader, kernel: Kernel) -> Arc<Kernel> {
        if let Some(first) = self.find(shader) {
            return first;
        }
        let kernel = Arc::new(kernel);
        let mut kernels = locked(&self.0);
        // Kernels nobody holds leave their source behind; this drops them at a constant cost per kernel.
        if kernels.len().is_power_of_two() {
            kernels.retain(|_, same_source| same_source.iter().any(|kernel| kernel.strong_count() > 0));
        }
        kernels.entry(shader.source.clone()).or_default().push(Arc::downgrade(&kernel));
        kernel
    }
}

impl Device {
    /// Compiles a shader, or returns the kernel that someone on this device holds of the same source and
    /// bindings. Out-of-bounds accesses stay checked; workgroup memory is not cleared beforehand.
    ///
    /// # Errors
    /// [`Error::Device`] with the compiler's message and the source line.
    pub fn kernel(&self, shader: &Shader) -> Result<Arc<Kernel>> {
        self.0.kernel(&self.0.kernels, shader, Checks::default())
    }

    /// [`Device::kernel`] for a text of the renderer's: checked as the device is.
    pub(crate) fn rendered(&self, shader: &Shader) -> Result<Arc<Kernel>> {
        let checks = self.0.info.checks;
        let kernels = if checks.are_off() { &self.0.unchecked } else { &self.0.kernels };
        self.0.kernel(kernels, shader, checks)
    }

    /// Binds buffers to a kernel.
    ///
    /// A buffer that a kernel writes can have no other kind of binding in the same kernel, not even of another
    /// range: that is WebGPU's rule.
    ///
    /// # Errors
    /// [`Error::Limit`] for a binding too many or too few, a range that does not fit its buffer, is too large or
    /// misaligned for the device, or breaks that rule.
    pub fn bind(&self, kernel: &Kernel, bindings: &[Binding<'_>]) -> Result<BindGroup> {
        self.0.bind(kernel, bindings)
    }
}

impl Inner {
    fn kernel(&self, known: &Kernels, shader: &Shader, checks: Checks) -> Result<Arc<Kernel>> {
        match known.find(shader) {
            Some(kernel) => Ok(kernel),
            None => Ok(known.enter(shader, self.compile(shader, checks)?)),
        }
    }

    fn compile(&self, shader: &Shader, checks: Checks) -> Result<Kernel> {
        let place = format!("kernel {:?}", shader.label);
        let label = Some(shader.label.as_str());
        let storage = shader.bindings.iter().filter(|kind| **kind != BindingKind::Uniform).count();
        let max_storage = self.info.caps.max_storage_bindings as usize;
        if storage > max_storage {
            return Err(Error::limit(
                place,
                format!("has {storage} storage bindings, the device allows {max_storage}"),
            ));
        }
        let mut text = None;
        let module = self.scoped(&place, || {
            let described = wgpu::ShaderModuleDescriptor {
                label,
                source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
            };
            let module = if checks.are_off() {
                let are = wgpu::ShaderRuntimeChecks {
                    bounds_checks: false,
                    force_loop_bounding: false,
                    ..wgpu::ShaderRuntimeChecks::checked()
                };
                // SAFETY: only the renderer's texts come here, and who made these checks vouches for them: `Checks::off`.
                unsafe { self.raw.create_shader_module_trusted(described, are) }
            } else {
                self.raw.create_shader_module(described)
            };
            text = compiler_text(&module);
            module
        });
        // The compiler's own text shows the source line, the scope's error does not.
        let module = module.map_err(|error| match (error, text) {
            (Error::Device { place, .. }, Some(message)) => Error::Device { place, message },
            (error, _) => error,
        })?;
        let entries: Vec<wgpu::BindGroupLayoutEntry> =
            shader.bindings.iter().zip(0..).map(|(kind, binding)| layout_entry(*kind, binding)).collect();
        self.scoped(&place, || {
            let layout = self
                .raw
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
            let pipeline_layout = self.raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = self.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
            let bindings = shader.bindings.clone();
            Kernel { pipeline, layout, label: shader.label.clone(), bindings }
        })
    }

    fn bind(&self, kernel: &Kernel, bindings: &[Binding<'_>]) -> Result<BindGroup> {
        if bindings.len() != kernel.bindings.len() {
            return Err(Error::limit(
                format!("kernel {:?}", kernel.label),
                format!("has {} bindings, got {}", kernel.bindings.len(), bindings.len()),
            ));
        }
        let mut entries = Vec::with_capacity(bindings.len());
        for (i, (binding, kind)) in bindings.iter().zip(&kernel.bindings).enumerate() {
            let refuse = |message| Error::limit(format!("kernel {:?}, binding {i}", kernel.label), message);
            let range = self.range(binding, *kind).map_err(refuse)?;
            let earlier = bindings.iter().zip(&kernel.bindings).take(i).position(|earlier| {
                Arc::ptr_eq(&earlier.0.buffer.0, &binding.buffer.0) && clash(earlier, (binding, kind))
            });
            if let Some(earlier) = earlier {
                let label = binding.buffer.label();
                return Err(refuse(format!("buffer {label:?} is written and also bound as {earlier}")));
            }
            entries.push(wgpu::BindGroupEntry {
                binding: i as u32,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &binding.buffer.0.raw,
                    offset: range.start,
                    size: wgpu::BufferSize::new(range.end - range.start),
                }),
            });
        }
        let raw = self.scoped(&format!("bindings of kernel {:?}", kernel.label), || {
            self.raw.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&kernel.label),
                layout: &kernel.layout,
                entries: &entries,
            })
        })?;
        Ok(BindGroup { raw, bindings: kernel.bindings.clone() })
    }

    /// The words a binding spans, or why the device cannot bind it.
    fn range(&self, binding: &Binding<'_>, kind: BindingKind) -> Result<std::ops::Range<u64>, String> {
        let &Binding { buffer, offset_bytes, size_bytes } = binding;
        let caps = &self.info.caps;
        let (limit_bytes, alignment) = match kind {
            BindingKind::Read | BindingKind::ReadWrite => {
                (caps.max_storage_binding_bytes, caps.storage_offset_alignment)
            }
            BindingKind::Uniform => (self.max_uniform_binding_bytes, caps.uniform_offset_alignment),
        };
        let Some(range) = buffer.words(offset_bytes, size_bytes) else {
            return Err(buffer.misfit(offset_bytes, size_bytes));
        };
        if padded(size_bytes) > limit_bytes {
            let label = buffer.label();
            return Err(format!(
                "{size_bytes} bytes of buffer {label:?}, the device binds at most {limit_bytes}"
            ));
        }
        if !offset_bytes.is_multiple_of(u64::from(alignment)) {
            let label = buffer.label();
            return Err(format!(
                "offset {offset_bytes} of buffer {label:?}, the device wants a multiple of {alignment}"
            ));
        }
        // A binding cannot be empty; an empty buffer has a word to bind.
        Ok(range.start..range.end.max(range.start + 4))
    }
}

/// Whether two bindings of one buffer exclude each other: one writes, and the other is of another kind or
/// overlaps.
fn clash(a: (&Binding<'_>, &BindingKind), b: (&Binding<'_>, &BindingKind)) -> bool {
    let apart = a.0.offset_bytes + a.0.size_bytes <= b.0.offset_bytes
        || b.0.offset_bytes + b.0.size_bytes <= a.0.offset_bytes;
    match (a.1, b.1) {
        (BindingKind::ReadWrite, BindingKind::ReadWrite) => !apart,
        (BindingKind::ReadWrite, BindingKind::Read | BindingKind::Uniform)
        | (BindingKind::Read | BindingKind::Uniform, BindingKind::ReadWrite) => true,
        (BindingKind::Read | BindingKind::Uniform, BindingKind::Read | BindingKind::Uniform) => false,
    }
}

fn layout_entry(kind: BindingKind, binding: u32) -> wgpu::BindGroupLayoutEntry {
    let ty = match kind {
        BindingKind::Read => wgpu::BufferBindingType::Storage { read_only: true },
        BindingKind::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
        BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// The errors the compiler reports for a module, with their source lines.
fn compiler_text(module: &wgpu::ShaderModule) -> Option<String> {
    let info = pollster::block_on(module.get_compilation_info());
    let errors: Vec<&str> = info
        .messages
        .iter()
        .filter(|message| message.message_type == wgpu::CompilationMessageType::Error)
        .map(|message| message.message.trim())
        .collect();
    (!errors.is_empty()).then(|| errors.join("\n"))
}
