//! Which features a device is opened with, and its [`Caps`].

use crate::kernel::{Caps, CooperativeSize};

/// The features this crate has a use for.
const WANTED: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SHADER_F64)
    .union(wgpu::Features::SHADER_INT64)
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SUBGROUP_BARRIER)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS)
    .union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES)
    .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

/// What of [`WANTED`] the adapter has.
pub(super) fn features(adapter: &wgpu::Adapter) -> wgpu::Features {
    let mut features = adapter.features() & WANTED;
    if adapter.cooperative_matrix_properties().is_empty() {
        features.remove(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    }
    features
}

/// The capabilities of a device that is opened with [`features`] and the adapter's own limits.
pub(super) fn caps(adapter: &wgpu::Adapter) -> Caps {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = features(adapter);
    let subgroups = features.contains(wgpu::Features::SUBGROUP);
    let cooperative = if features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        adapter.cooperative_matrix_properties().iter().map(cooperative_size).collect()
    } else {
        Vec::new()
    };
    Caps {
        // A binding's size is a multiple of 4; some drivers report 2^32 - 1.
        max_storage_binding_bytes: limits.max_storage_buffer_binding_size & !3,
        max_buffer_bytes: limits.max_buffer_size & !3,
        max_storage_bindings: limits
            .max_storage_buffers_per_shader_stage
            .min(limits.max_bindings_per_bind_group),
        storage_offset_alignment: limits.min_storage_buffer_offset_alignment,
        uniform_offset_alignment: limits.min_uniform_buffer_offset_alignment,
        max_workgroup_size: [
            limits.max_compute_workgroup_size_x,
            limits.max_compute_workgroup_size_y,
            limits.max_compute_workgroup_size_z,
        ],
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_workgroups: limits.max_compute_workgroups_per_dimension,
        f16: features.contains(wgpu::Features::SHADER_F16),
        f64: features.contains(wgpu::Features::SHADER_F64),
        i64: features.contains(wgpu::Features::SHADER_INT64),
        // naga spells them out where a driver has none.
        packed_dot: true,
        subgroups,
        subgroup_size: if subgroups { [info.subgroup_min_size, info.subgroup_max_size] } else { [0, 0] },
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        cpu: is_cpu(&info),
        cooperative,
    }
}

/// Whether the adapter is software. Some report themselves as another kind of device, so the names count too.
pub(super) fn is_cpu(info: &wgpu::AdapterInfo) -> bool {
    let name = info.name.to_lowercase();
    info.device_type == wgpu::DeviceType::Cpu || name.contains("llvmpipe") || name.contains("swiftshader")
}

fn cooperative_size(size: &wgpu::CooperativeMatrixProperties) -> CooperativeSize {
    CooperativeSize {
        m: size.m_size,
        n: size.n_size,
        k: size.k_size,
        ab: scalar(size.ab_type).to_owned(),
        c: scalar(size.cr_type).to_owned(),
    }
}

fn scalar(kind: wgpu::CooperativeScalarType) -> &'static str {
    match kind {
        wgpu::CooperativeScalarType::F32 => "f32",
        wgpu::CooperativeScalarType::F16 => "f16",
        wgpu::CooperativeScalarType::I32 => "i32",
        wgpu::CooperativeScalarType::U32 => "u32",
    }
}
