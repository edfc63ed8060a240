//! Renders `gemm_cooperative.wgsl`.

use super::contract::{copies, store, sums};
use super::operand::Operand;
use super::scope::Scope;
use super::{Dialect, Rendered, Target};
use crate::error::{Error, Result};
use crate::kernel::{Along, ContractBody, CooperativeSchedule, KernelSpec, cooperative_element};

pub const SKELETON: &str = include_str!("../../shaders/gemm_cooperative.wgsl");

pub fn render(
    label: &str,
    spec: &KernelSpec,
    body: &ContractBody,
    schedule: &CooperativeSchedule,
    target: Target,
) -> Result<Rendered> {
    let Some(element) = cooperative_element(body, target.floats.f16) else {
        return Err(Error::limit(label, "cooperative matrices of other elements than f16 or f32"));
    };
    let body = &body.with_f32_sums();
    let mut scope = Scope::new(spec, target);
    sums(&mut scope, body);
    Operand::a(body).block(&mut scope);
    Operand::b(body).block(&mut scope);
    store(&mut scope, spec, body);
    scope.region("enable".into(), enable(target.dialect).into());
    scope.region("matrices".into(), matrices(target.dialect));
    let CooperativeSchedule { size, subgroup, groups_m, groups_n, micro_m, micro_n, tile_k } = schedule;
    let mut knobs = format!("alias Elem = {element};\n");
    for (role, part, ty) in [("A", "left", element), ("B", "right", element), ("C", "result", "f32")] {
        let matrix = match target.dialect {
            Dialect::Naga => format!("coop_mat{size}x{size}<{ty}, {role}>"),
            Dialect::Browser => format!("subgroup_matrix_{part}<{ty}, {size}, {size}>"),
        };
        knobs.push_str(&format!("alias Matrix{role} = {matrix};\n"));
    }
    let numbers = [
        ("SIZE", size),
        ("SUBGROUP", subgroup),
        ("GROUPS_M", groups_m),
        ("GROUPS_N", groups_n),
        ("MICRO_M", micro_m),
        ("MICRO_N", micro_n),
        ("TILE_K", tile_k),
    ];
    for (name, value) in numbers {
        knobs.push_str(&format!("const {name}: u32 = {value}u;\n"));
    }
    for (name, along) in [("A_ALONG_K", body.along_a()), ("B_ALONG_K", body.along_b())] {
        knobs.push_str(&format!("const {name}: bool = {};\n", along == Along::K));
    }
    knobs.push_str(&copies("m", "u32", *micro_m));
    knobs.push_str(&copies("n", "u32", *micro_n));
    let counts = [("MICRO_M", *micro_m as usize), ("MICRO_N", *micro_n as usize)].into();
    scope.finish(label, "gemm_cooperative.wgsl", SKELETON, knobs, counts)
}

/// Of matrix instructions Chromium's compiler wants control flow to be uniform within the workgroup; here it is so within
/// the subgroup, which is what they need.
fn enable(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Naga => "enable wgpu_cooperative_matrix;\n",
        Dialect::Browser => {
            "enable chromium_experimental_subgroup_matrix;\n\
             diagnostic(off, chromium.subgroup_matrix_uniformity);\n"
        }
    }
}

/// The device's instructions as functions. Chromium's experimental ones are those of
/// <https://github.com/gpuweb/gpuweb/issues/4195>.
fn matrices(dialect: Dialect) -> String {
    let loads = [("a", "MatrixA", "TILE_K"), ("b", "MatrixB", "TILE_N"), ("c", "MatrixC", "SIZE")];
    let mut text = String::new();
    for (tile, matrix, row) in loads {
        let call = match dialect {
            Dialect::Naga => format!("coopLoadT<{matrix}>(&tile_{tile}[at], {row})"),
            Dialect::Browser => format!("subgroupMatrixLoad<{matrix}, row_major>(&tile_{tile}, at, {row})"),
        };
        text.push_str(&format!("fn load_tile_{tile}(at: u32) -> {matrix} {{ return {call}; }}\n"));
    }
    let (store, multiply_add) = match dialect {
        Dialect::Naga => ("coopStoreT(c, &tile_c[at], SIZE)", "coopMultiplyAdd"),
        Dialect::Browser => {
            ("subgroupMatrixStore<row_major>(&tile_c, at, c, SIZE)", "subgroupMatrixMultiplyAccumulate")
        }
    };
    text.push_str(&format!("fn store_tile_c(at: u32, c: MatrixC) {{ {store}; }}\n"));
    text.push_str("fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC ");
    text.push_str(&format!("{{ return {multiply_add}(a, b, c); }}\n"));
    text
}
