//! Every kernel text is valid WGSL: the skeletons as they stand, and what is rendered from a corpus of models and from
//! every scalar operator, under every schedule that may be chosen. naga checks the language; what browsers refuse and
//! naga lets pass is checked here.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{
    Binding, BuiltIn, Expression, Function, Handle, Literal, LocalVariable, Module, Statement, TypeInner,
};
use support::net::Net;
use support::{contractions, corpus, maps, rows};
use tilewright::DType;
use tilewright::expr::{Binary, Expr, HELPERS, Idx, Unary};
use tilewright::ir::Combine;
use tilewright::kernel::{
    Body, Caps, CooperativeSize, KernelSpec, RowResult, Schedule, Stage, candidates, default_schedule, grid,
    passes,
};
use tilewright::wgsl::{BindingKind, Bound, Dialect, SKELETONS, Target, render, render_passes};

/// What is wrong with a kernel's text, if anything.
fn faults(text: &str, f16: bool) -> Vec<String> {
    faults_with(text, f16, false)
}

/// The same for a device that may have 64-bit numbers.
fn faults_with(text: &str, f16: bool, f64: bool) -> Vec<String> {
    let module = match parse(text) {
        Ok(module) => module,
        Err(error) => return vec![error.emit_to_string(text)],
    };
    // `quantizeToF16` is in every WGSL; 16-bit types are not.
    let mut allowed =
        Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX;
    allowed.set(Capabilities::SHADER_FLOAT16, f16);
    allowed.set(Capabilities::FLOAT64 | Capabilities::SHADER_INT64, f64);
    let mut validator = Validator::new(ValidationFlags::all(), allowed);
    validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
    if let Err(error) = validator.validate(&module) {
        return vec![error.emit_to_string(text)];
    }
    let mut faults = Vec::new();
    let entries = module.entry_points.iter().map(|entry| (entry.name.as_str(), &entry.function, true));
    let functions = module.functions.iter().map(|(_, f)| (f.name.as_deref().unwrap_or("?"), f, false));
    for (name, function, is_entry) in entries.chain(functions) {
        let mut fault = |what: String| faults.push(format!("{name}: {what}"));
        // Numbers of 64 bits are shifted by up to 63.
        let of_64_bits = ["f64", "four_", "words_"].iter().any(|part| name.contains(part));
        if !(f64 && of_64_bits) {
            constants(&module, function, &mut fault);
        }
        arguments(&module, function, &mut fault);
        barriers(&module, function, is_entry, &mut fault);
    }
    enables(text, f16, &mut |what| faults.push(what));
    faults
}

/// The module of a text. naga does not know the line that browsers want before subgroup operations.
fn parse(text: &str) -> Result<Module, naga::front::wgsl::ParseError> {
    naga::front::wgsl::parse_str(&text.replace(ENABLE_SUBGROUPS, ""))
}

const ENABLE_SUBGROUPS: &str = "enable subgroups;\n";

/// Constants that Tint refuses: infinities and NaN, shifts by the width or more. (naga sees divisors of zero.)
fn constants(module: &Module, function: &Function, fault: &mut dyn FnMut(String)) {
    let literal = |e: Handle<Expression>| match function.expressions[e] {
        Expression::Literal(literal) => Some(literal),
        Expression::Constant(constant) => match module.global_expressions[module.constants[constant].init] {
            Expression::Literal(literal) => Some(literal),
            _ => None,
        },
        _ => None,
    };
    let finite = |l: &Literal| match *l {
        Literal::F32(v) => v.is_finite(),
        Literal::F16(v) => v.is_finite(),
        Literal::F64(v) | Literal::AbstractFloat(v) => v.is_finite(),
        _ => true,
    };
    let globals = module.global_expressions.iter();
    for (_, expression) in function.expressions.iter().chain(globals) {
        match expression {
            Expression::Literal(l) if !finite(l) => fault(format!("the constant {l:?}")),
            Expression::Binary { op, right, .. } if function.expressions.try_get(*right).is_ok() => {
                use naga::BinaryOperator::*;
                if let (ShiftLeft | ShiftRight, Some(Literal::U32(32..))) = (op, literal(*right)) {
                    fault("a shift by the width or more".into());
                }
            }
            _ => {}
        }
    }
}

/// Pointers are no arguments: browsers and naga agree on too few of them.
fn arguments(module: &Module, function: &Function, fault: &mut dyn FnMut(String)) {
    for argument in &function.arguments {
        if matches!(
            module.types[argument.ty].inner,
            TypeInner::Pointer { .. } | TypeInner::ValuePointer { .. }
        ) {
            fault(format!("argument {:?} is a pointer", argument.name));
        }
    }
}

/// Barriers and subgroup operations are reached by all invocations of a workgroup or by none: they stand in an entry
/// point, under no condition but on what is the same for all, and nothing returns before them.
fn barriers(module: &Module, function: &Function, is_entry: bool, fault: &mut dyn FnMut(String)) {
    struct Walk<'a> {
        uniform: Uniform<'a>,
        conditional: bool,
        returned: bool,
        found: usize,
        faults: Vec<String>,
    }
    impl Walk<'_> {
        fn block(&mut self, block: &naga::Block) {
            for statement in block {
                match statement {
                    Statement::ControlBarrier(_)
                    | Statement::WorkGroupUniformLoad { .. }
                    | Statement::SubgroupCollectiveOperation { .. }
                    | Statement::SubgroupGather { .. }
                    | Statement::SubgroupBallot { .. } => {
                        self.found += 1;
                        if self.conditional || self.returned {
                            self.faults.push("a barrier that not every invocation may reach".into());
                        }
                    }
                    Statement::Block(inner) => self.block(inner),
                    Statement::Loop { body, continuing, .. } => {
                        let before = self.found;
                        self.block(body);
                        self.block(continuing);
                        // The loop's own condition: `if cond {} else { break }` at the head of its body.
                        let uniform = body.iter().all(|s| match s {
                            Statement::If { condition, accept, reject }
                                if breaks(accept) || breaks(reject) =>
                            {
                                self.uniform.value(*condition, &mut Vec::new())
                            }
                            _ => true,
                        });
                        if self.found > before && !uniform {
                            self.faults
                                .push("a barrier in a loop that not every invocation walks alike".into());
                        }
                    }
                    Statement::If { condition, accept, reject } => {
                        let is_uniform = self.uniform.value(*condition, &mut Vec::new());
                        let outer = self.conditional;
                        self.conditional |= !is_uniform;
                        self.block(accept);
                        self.block(reject);
                        self.conditional = outer;
                    }
                    Statement::Switch { cases, .. } => {
                        let outer = std::mem::replace(&mut self.conditional, true);
                        cases.iter().for_each(|case| self.block(&case.body));
                        self.conditional = outer;
                    }
                    Statement::Return { .. } => self.returned |= self.conditional,
                    _ => {}
                }
            }
        }
    }
    let uniform = Uniform { module, function };
    let mut walk = Walk { uniform, conditional: false, returned: false, found: 0, faults: Vec::new() };
    walk.block(&function.body);
    if !is_entry && walk.found > 0 {
        walk.faults.push("a barrier outside the entry point".into());
    }
    walk.faults.into_iter().for_each(fault);
}

/// The arguments of the call whose result is `result`.
fn arguments_of(
    block: &naga::Block,
    result: Handle<Expression>,
    found: &mut Option<Vec<Handle<Expression>>>,
) {
    for statement in block {
        match statement {
            Statement::Call { arguments, result: Some(r), .. } if *r == result => {
                *found = Some(arguments.clone())
            }
            Statement::Block(inner) => arguments_of(inner, result, found),
            Statement::Loop { body, .. } => arguments_of(body, result, found),
            _ => {}
        }
    }
}

/// Whether a function, and those it calls, read no memory but uniform buffers. An array's length is no memory.
fn reads_only_uniforms(module: &Module, function: Handle<Function>) -> bool {
    let all = &module.functions[function].expressions;
    let is_used = |by: fn(&Expression) -> Option<Handle<Expression>>, array| {
        all.iter().any(|(_, e)| by(e) == Some(array))
    };
    let measures = |e: &Expression| if let Expression::ArrayLength(array) = e { Some(*array) } else { None };
    let reads = |e: &Expression| match e {
        Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => Some(*base),
        _ => None,
    };
    let is_measured = |array| is_used(measures, array) && !is_used(reads, array);
    all.iter().all(|(handle, e)| match e {
        Expression::GlobalVariable(v) => {
            module.global_variables[*v].space == naga::AddressSpace::Uniform || is_measured(handle)
        }
        Expression::CallResult(other) => reads_only_uniforms(module, *other),
        _ => true,
    })
}

fn breaks(block: &naga::Block) -> bool {
    block.iter().any(|s| matches!(s, Statement::Break))
}

/// What has the same value in all invocations of a workgroup.
struct Uniform<'a> {
    module: &'a Module,
    function: &'a Function,
}

impl Uniform<'_> {
    /// `known` are variables under consideration: a loop's may depend on itself.
    fn value(&self, e: Handle<Expression>, known: &mut Vec<Handle<LocalVariable>>) -> bool {
        match &self.function.expressions[e] {
            Expression::Literal(_) | Expression::Constant(_) | Expression::ZeroValue(_) => true,
            Expression::WorkGroupUniformLoadResult { .. } => true,
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => self.value(*expr, known),
            Expression::AccessIndex { base, .. } => self.value(*base, known),
            Expression::Binary { left, right, .. } => self.value(*left, known) && self.value(*right, known),
            Expression::FunctionArgument(number) => matches!(
                self.function.arguments[*number as usize].binding,
                Some(Binding::BuiltIn(BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups))
            ),
            Expression::CallResult(called) => {
                let mut arguments = None;
                arguments_of(&self.function.body, e, &mut arguments);
                reads_only_uniforms(self.module, *called)
                    && arguments.is_some_and(|all| all.iter().all(|&a| self.value(a, known)))
            }
            Expression::Math { arg, arg1, arg2: None, arg3: None, .. } => {
                self.value(*arg, known) && arg1.is_none_or(|arg| self.value(arg, known))
            }
            Expression::Load { pointer } => match self.function.expressions[*pointer] {
                Expression::LocalVariable(variable) if known.contains(&variable) => true,
                Expression::LocalVariable(variable) => {
                    known.push(variable);
                    let mut stores = Vec::new();
                    stores_to(self.function, &self.function.body, variable, &mut stores);
                    stores.iter().all(|&value| self.value(value, known))
                }
                _ => false,
            },
            _ => false,
        }
    }
}

/// The values stored in a variable anywhere in `block`.
fn stores_to(
    f: &Function,
    block: &naga::Block,
    variable: Handle<LocalVariable>,
    out: &mut Vec<Handle<Expression>>,
) {
    for statement in block {
        match statement {
            Statement::Store { pointer, value } => match f.expressions[*pointer] {
                Expression::LocalVariable(stored) if stored == variable => out.push(*value),
                _ => {}
            },
            Statement::Block(inner) => stores_to(f, inner, variable, out),
            Statement::Loop { body, continuing, .. } => {
                stores_to(f, body, variable, out);
                stores_to(f, continuing, variable, out);
            }
            Statement::If { accept, reject, .. } => {
                stores_to(f, accept, variable, out);
                stores_to(f, reject, variable, out);
            }
            Statement::Switch { cases, .. } => {
                cases.iter().for_each(|case| stores_to(f, &case.body, variable, out))
            }
            _ => {}
        }
    }
}

/// `enable` lines as the compiler at hand wants them, for what the text uses and nothing else.
fn enables(text: &str, f16: bool, fault: &mut dyn FnMut(String)) {
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let uses_f16 = words.contains(&"f16") && text.replace("enable f16;", "").contains("f16");
    let names_f16 =
        text.replace("enable f16;", "").split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "f16");
    if uses_f16 && names_f16 && !text.starts_with("enable f16;") {
        fault("f16 without `enable f16;`".into());
    }
    if !f16 && names_f16 {
        fault("f16 on a device without it".into());
    }
    let declared = text.contains(ENABLE_SUBGROUPS);
    if declared && !subgroup_operations(text) {
        fault("`enable subgroups;` without subgroup operations".into());
    }
}

fn subgroup_operations(text: &str) -> bool {
    let names = ["Add", "Mul", "Max", "Min", "Broadcast"];
    names.iter().any(|name| text.contains(&format!("subgroup{name}(")))
}

fn assert_valid(label: &str, text: &str, f16: bool) {
    let faults = faults(text, f16);
    assert!(faults.is_empty(), "{label}: {}\n{text}", faults.join("\n"));
}

/// The texts, their bindings and their workgroups under one schedule; a text is checked once.
fn check(label: &str, spec: &KernelSpec, schedule: &Schedule, sizes: &[i64], caps: &Caps, seen: &mut Seen) {
    let label = format!("{label}, {schedule}");
    for pass in passes(spec, schedule, sizes, caps) {
        let mut texts = Vec::new();
        // What naga cannot read is for the browser's own compiler alone.
        let is_cooperative = matches!(pass.schedule, Schedule::Cooperative(_));
        for dialect in [Dialect::Naga, Dialect::Browser] {
            let target = Target::new(caps, dialect);
            let rendered = render("kernel", &pass.spec, &pass.schedule, target)
                .unwrap_or_else(|e| panic!("{label}: {e}"));
            assert_eq!(rendered.shader.bindings.len(), rendered.bound.len(), "{label}");
            let storage =
                rendered.shader.bindings.iter().filter(|kind| **kind != BindingKind::Uniform).count();
            assert!(storage <= caps.max_storage_bindings as usize, "{label}: {storage} storage bindings");
            let outputs = rendered.bound.iter().filter(|bound| **bound == Bound::Output).count();
            assert_eq!(outputs, 1, "{label}: outputs");
            let text = rendered.shader.source;
            let enabled = dialect == Dialect::Browser && subgroup_operations(&text);
            assert_eq!(text.contains(ENABLE_SUBGROUPS), enabled, "{label}, {dialect:?}");
            assert!(
                target.words64 || !text.contains("u64>;") && !text.contains("u64>>;"),
                "{label}, {dialect:?}: 64-bit words"
            );
            if dialect == Dialect::Browser && !seen.contains(&text) {
                write_for_browsers(&pass.spec, &pass.schedule, &text);
            }
            if dialect == Dialect::Naga || !is_cooperative {
                texts.push((text, target.words64));
            }
        }
        texts.dedup();
        for (text, words64) in texts.into_iter().filter(|(text, _)| seen.insert(text.clone())) {
            let faults = faults_with(&text, caps.f16, words64);
            assert!(faults.is_empty(), "{label}: {}\n{text}", faults.join("\n"));
            workgroup(&label, &text, caps);
        }
    }
}

/// Leave a text to the browser's compiler (`web/tests/wgsl.test.mjs`) in the folder `TILEWRIGHT_WGSL`, if it is set. The
/// file's name begins with skeleton and dtypes, so that a sample can have some of each.
fn write_for_browsers(spec: &KernelSpec, schedule: &Schedule, text: &str) {
    let Some(folder) = std::env::var_os("TILEWRIGHT_WGSL") else { return };
    let dtypes: BTreeSet<&str> = spec.inputs.iter().chain([&spec.output]).map(|dtype| dtype.name()).collect();
    let dtypes: Vec<&str> = dtypes.into_iter().collect();
    let kind = contractions::kind(schedule);
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let name = format!("{kind}.{}.{:016x}.wgsl", dtypes.join("-"), hasher.finish());
    let file = Path::new(&folder).join(name);
    std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(file, text)).unwrap();
}

/// Texts that were checked before.
type Seen = std::collections::HashSet<String>;

/// Workgroup size and memory within the device's limits; nothing else checks the memory.
fn workgroup(label: &str, text: &str, caps: &Caps) {
    let module = parse(text).unwrap();
    let [x, y, z] = module.entry_points[0].workgroup_size;
    assert!(x * y * z <= caps.max_workgroup_invocations, "{label}: {x} x {y} x {z} invocations");
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, v)| layouter[v.ty].size).sum();
    assert!(bytes <= caps.max_workgroup_bytes, "{label}: {bytes} bytes of workgroup memory");
    for argument in &module.entry_points[0].function.arguments {
        let Some(Binding::BuiltIn(builtin)) = &argument.binding else { continue };
        let of_subgroups = matches!(builtin, BuiltIn::SubgroupSize | BuiltIn::SubgroupInvocationId);
        assert!(caps.subgroups || !of_subgroups, "{label}: {builtin:?}");
    }
    assert!(caps.subgroups || !subgroup_operations(text), "{label}: subgroup operations");
}

/// Devices with packed dot products: what WebGPU promises everywhere else, and software with 16-bit floats, 64-bit integers and subgroups.
fn devices() -> [Caps; 2] {
    let software =
        Caps { f16: true, i64: true, cpu: true, subgroups: true, subgroup_size: [8, 8], ..Caps::default() };
    [Caps::default(), software].map(|caps| Caps { packed_dot: true, ..caps })
}

/// Every kind of schedule and every renderer of operands: products in all layouts, at sizes that tiles divide and at
/// others, under candidates from all over the space.
#[test]
fn contractions_of_every_kind_are_valid() {
    let mut kinds = BTreeMap::<String, usize>::new();
    let mut texts = Seen::new();
    let gpu = Caps { subgroups: true, subgroup_size: [16, 32], ..Caps::default() };
    let matrices =
        |size, ab: &str| CooperativeSize { m: size, n: size, k: size, ab: ab.into(), c: "f32".into() };
    let cooperative = vec![matrices(8, "f32"), matrices(16, "f16")];
    let fixed = Caps { f16: true, subgroups: true, subgroup_size: [32, 32], cooperative, ..Caps::default() };
    for (number, (spec, sizes)) in contractions::all().into_iter().enumerate() {
        for caps in devices().into_iter().chain([gpu.clone(), fixed.clone()]) {
            if spec.has_f16_sums() && !caps.f16 {
                continue;
            }
            let mut by_kind = BTreeMap::<String, Vec<Schedule>>::new();
            for schedule in contractions::legal(&spec, &sizes, &caps) {
                by_kind.entry(contractions::kind(&schedule)).or_default().push(schedule);
            }
            for (kind, schedules) in by_kind {
                let each = schedules.len().div_ceil(3);
                for schedule in schedules.iter().skip(number % each).step_by(each) {
                    *kinds.entry(kind.clone()).or_default() += 1;
                    check(&format!("contraction {number}"), &spec, schedule, &sizes, &caps, &mut texts);
                }
            }
        }
    }
    for kind in ["Contract", "Tiled", "Subgroup", "Cooperative", "Gemv", "Apart B", "Apart Epilogue"] {
        assert!(kinds.get(kind).is_some_and(|&n| n >= 10), "few schedules of a kind: {kinds:?}");
    }
}

/// Maps that read along another axis than they store, under all that goes through workgroup memory.
#[test]
fn transpositions_of_every_kind_are_valid() {
    let mut texts = Seen::new();
    for (number, case) in maps::cases().into_iter().enumerate() {
        let (spec, sizes) = (case.spec(), case.sizes());
        for caps in devices() {
            let legal = contractions::legal(&spec, &sizes, &caps);
            for schedule in legal.iter().filter(|s| matches!(s, Schedule::Transpose(_))) {
                check(&format!("transposition {number}"), &spec, schedule, &sizes, &caps, &mut texts);
            }
        }
    }
    assert!(texts.len() > 100, "few texts: {}", texts.len());
}

/// Row kernels of all forms, under a sample of each algorithm.
#[test]
fn rows_of_every_kind_are_valid() {
    let mut texts = Seen::new();
    let gpu = Caps { subgroups: true, subgroup_size: [16, 32], ..Caps::default() };
    for (number, case) in rows::cases().into_iter().enumerate() {
        let (spec, sizes) = (case.spec(), case.sizes());
        for caps in devices().into_iter().chain([gpu.clone()]) {
            let legal = contractions::legal(&spec, &sizes, &caps);
            for schedule in legal.iter().skip(number % 9).step_by(9) {
                check(&format!("rows {number}"), &spec, schedule, &sizes, &caps, &mut texts);
            }
        }
    }
    assert!(texts.len() > 100, "few texts: {}", texts.len());
}

/// Selections, sorts and merges of keys of one and two words, at static and symbolic sizes.
#[test]
fn orders_of_every_kind_are_valid() {
    let mut texts = Seen::new();
    for (dtype, shape, k) in
        [(DType::F32, "rows 5000", 50), (DType::I64, "4 n", 7), (DType::F16, "3000", 3000)]
    {
        let net = Net::new().input("x", dtype, shape).list("k", &[k]);
        let net = net.node("TopK", "x k", "top at", &[]).output("at", DType::I64);
        for caps in devices() {
            let kernel = net.plan(&caps).kernels.remove(0);
            let legal = contractions::legal(&kernel.spec, &[9000], &caps);
            for schedule in legal.iter().step_by(3) {
                check(&kernel.label, &kernel.spec, schedule, &[9000], &caps, &mut texts);
            }
        }
    }
    assert!(texts.len() > 30, "few texts: {}", texts.len());
}

/// Sizes under which schedules are chosen: small, odd, large.
fn size_sets(params: usize) -> Vec<Vec<i64>> {
    [1, 3, 64, 300].iter().map(|&size| vec![size; params]).collect()
}

#[test]
fn skeletons_are_valid_as_they_stand() {
    for (name, text) in SKELETONS {
        // A repeated part stands there once.
        assert_valid(name, text, false);
    }
    assert_eq!(faults_with(HELPERS, false, true), Vec::<String>::new(), "the scalar functions");
}

#[test]
fn kernels_of_the_corpus_are_valid_under_every_schedule() {
    // Rendered texts, each checked once: models share kernels.
    let mut seen = std::collections::HashSet::new();
    let mut texts = Seen::new();
    let mut families = BTreeMap::<&str, usize>::new();
    for (name, net) in corpus::models() {
        for caps in devices() {
            let plan = match tilewright::plan::plan(&net.graph(), &Default::default(), &caps) {
                Ok(plan) => plan,
                Err(stop) => panic!("{name}: {stop:?}"),
            };
            for kernel in plan.kernels {
                if !seen.insert((kernel.spec.clone(), caps.f16)) {
                    continue;
                }
                let mut schedules = Vec::new();
                for sizes in size_sets(kernel.spec.params) {
                    for (i, schedule) in candidates(&kernel.spec, &sizes, &caps).into_iter().enumerate() {
                        if i == 0 {
                            for pass in passes(&kernel.spec, &schedule, &sizes, &caps) {
                                let grid =
                                    grid(&kernel.label, &pass.spec, &pass.schedule, &pass.sizes, &caps);
                                assert!(grid.is_ok(), "{name}: {} at {sizes:?}: {grid:?}", kernel.label);
                            }
                        }
                        if !schedules.iter().any(|(known, _)| *known == schedule) {
                            schedules.push((schedule, sizes.clone()));
                        }
                    }
                }
                assert!(!schedules.is_empty(), "{name}: {} has no schedule", kernel.label);
                // The texts of contractions, attention and rows are long or many, and their knobs say much the same: each
                // seventh, and so every value of each.
                let each =
                    if ["gemm", "attention", "reduce"].contains(&kernel.spec.family()) { 7 } else { 1 };
                for (schedule, sizes) in schedules.iter().step_by(each) {
                    let label = format!("{name}, {}", kernel.label);
                    check(&label, &kernel.spec, schedule, sizes, &caps, &mut texts);
                }
                *families.entry(kernel.spec.family()).or_default() += schedules.len();
            }
        }
    }
    for family in ["map", "reduce", "gemm", "attention"] {
        assert!(families.get(family).is_some_and(|&n| n > 100), "few kernels of a family: {families:?}");
    }
}

const UNARY: &[Unary] = &[
    Unary::Neg,
    Unary::Abs,
    Unary::Sign,
    Unary::Floor,
    Unary::Ceil,
    Unary::Round,
    Unary::Trunc,
    Unary::Exp,
    Unary::Log,
    Unary::Sqrt,
    Unary::Sin,
    Unary::Cos,
    Unary::Tan,
    Unary::Asin,
    Unary::Acos,
    Unary::Atan,
    Unary::Sinh,
    Unary::Cosh,
    Unary::Tanh,
    Unary::Asinh,
    Unary::Acosh,
    Unary::Atanh,
    Unary::Erf,
    Unary::Not,
    Unary::BitNot,
    Unary::IsNan,
    Unary::IsPosInf,
    Unary::IsNegInf,
];

const BINARY: &[Binary] = &[
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Rem,
    Binary::Mod,
    Binary::Pow,
    Binary::Min,
    Binary::Max,
    Binary::Eq,
    Binary::Lt,
    Binary::Le,
    Binary::And,
    Binary::Or,
    Binary::Xor,
    Binary::BitAnd,
    Binary::BitOr,
    Binary::BitXor,
    Binary::Shl,
    Binary::Shr,
];

/// Every dtype with a form on the device.
const DTYPES: &[DType] = &[
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::F64,
    DType::F8E4M3FN,
    DType::F8E4M3FNUZ,
    DType::F8E5M2,
    DType::F8E5M2FNUZ,
    DType::F4E2M1,
    DType::F8E8M0,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
    DType::I4,
    DType::U4,
    DType::I2,
    DType::U2,
    DType::Bool,
];

/// Whether an operator has a meaning for a dtype.
fn makes_sense(op: Binary, dtype: DType) -> bool {
    use Binary::*;
    match op {
        BitAnd | BitOr | BitXor => !dtype.is_float(),
        Shl | Shr => dtype.is_int(),
        And | Or | Xor => dtype == DType::Bool,
        Div | Rem | Mod | Pow => dtype != DType::Bool,
        Add | Sub | Mul | Min | Max | Eq | Lt | Le => true,
    }
}

fn unary_makes_sense(op: Unary, dtype: DType) -> bool {
    match op {
        Unary::Not => dtype == DType::Bool,
        Unary::BitNot => dtype.is_int(),
        Unary::IsNan | Unary::IsPosInf | Unary::IsNegInf | Unary::Neg | Unary::Abs | Unary::Sign => {
            dtype != DType::Bool
        }
        _ => dtype.is_float(),
    }
}

/// `out[i] = value(i)` over 12 elements.
fn map(inputs: &[DType], value: Expr) -> KernelSpec {
    let output = value.dtype();
    KernelSpec {
        inputs: inputs.to_vec(),
        output,
        params: 0,
        body: Body::Map { len: Idx::from(12i64), value },
    }
}

fn element(source: u32, dtype: DType) -> Expr {
    Expr::load(source, dtype, vec![Idx::var(0, &Idx::from(12i64))])
}

/// What is wrong with a kernel under its default schedule.
fn default_faults(label: &str, spec: &KernelSpec, all: &mut Vec<String>) {
    for caps in devices() {
        let target = Target::new(&caps, Dialect::Browser);
        let schedule = default_schedule(spec, &[], &caps);
        match render_passes("kernel", spec, &schedule, &[], &caps, target) {
            Ok(passes) => {
                for (pass, rendered) in &passes {
                    write_for_browsers(&pass.spec, &pass.schedule, &rendered.shader.source);
                }
                let found = passes.iter().flat_map(|(_, pass)| faults(&pass.shader.source, caps.f16));
                all.extend(found.map(|fault| format!("{label}: {fault}")));
            }
            Err(error) => all.push(format!("{label}: {error}")),
        }
    }
}

#[test]
fn every_scalar_operator_is_valid() {
    let mut all = Vec::new();
    for &dtype in DTYPES {
        let (x, y) = (element(0, dtype), element(1, dtype));
        for &op in UNARY.iter().filter(|&&op| unary_makes_sense(op, dtype)) {
            default_faults(&format!("{op:?} {dtype}"), &map(&[dtype], x.unary(op)), &mut all);
            // Twice over: what is printed is read again by the next.
            let nested = if x.unary(op).dtype() == dtype {
                x.unary(op).unary(op)
            } else {
                x.unary(op).unary(Unary::Not)
            };
            default_faults(&format!("{op:?} {op:?} {dtype}"), &map(&[dtype], nested), &mut all);
        }
        for &op in BINARY.iter().filter(|&&op| makes_sense(op, dtype)) {
            default_faults(&format!("{op:?} {dtype}"), &map(&[dtype, dtype], x.binary(op, &y)), &mut all);
            for constant in [0, 1, -1, 2, 3, 31, 32, 127, i32::MIN as i64, i32::MAX as i64] {
                let c = Expr::int(dtype, constant);
                if dtype.is_unsigned_int() && constant < 0 {
                    continue;
                }
                default_faults(
                    &format!("{op:?} {dtype} by {constant}"),
                    &map(&[dtype], x.binary(op, &c)),
                    &mut all,
                );
                default_faults(
                    &format!("{op:?} {constant} by {dtype}"),
                    &map(&[dtype], c.binary(op, &x)),
                    &mut all,
                );
            }
        }
        for &to in DTYPES {
            default_faults(&format!("{dtype} to {to}"), &map(&[dtype], x.cast(to)), &mut all);
        }
    }
    assert!(all.is_empty(), "{} faults:\n{}", all.len(), all.join("\n"));
}

#[test]
fn every_constant_is_valid() {
    use tilewright::expr::Value;
    let mut all = Vec::new();
    let floats = [
        0.0,
        -0.0,
        1.0,
        1e-45,
        1e-38,
        3.4e38,
        f64::MAX,
        -1e300,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        0.1,
    ];
    for &dtype in DTYPES {
        let x = element(0, dtype);
        let constants: Vec<Expr> = if dtype.is_float() {
            floats.iter().map(|&v| Expr::float(dtype, v)).collect()
        } else if dtype == DType::Bool {
            vec![Expr::bool(true), Expr::bool(false)]
        } else {
            let all = [i32::MIN as i64, -2, 0, 7, i32::MAX as i64, u32::MAX as i64];
            let fits = |&v: &i64| {
                if dtype.is_unsigned_int() {
                    (0..=u32::MAX as i64).contains(&v)
                } else {
                    v <= i32::MAX as i64
                }
            };
            all.into_iter().filter(fits).map(|v| Expr::constant(dtype, Value::I(v))).collect()
        };
        for c in constants {
            default_faults(&format!("{dtype} {c}"), &map(&[], c.clone()), &mut all);
            default_faults(&format!("max {dtype} {c}"), &map(&[dtype], x.binary(Binary::Max, &c)), &mut all);
            let chosen = element(1, DType::Bool).select(&c, &x);
            default_faults(&format!("select {dtype} {c}"), &map(&[dtype, DType::Bool], chosen), &mut all);
        }
    }
    assert!(all.is_empty(), "{} faults:\n{}", all.len(), all.join("\n"));
}

#[test]
fn every_reduction_is_valid() {
    for &dtype in DTYPES {
        for combine in [Combine::Sum, Combine::Prod, Combine::Max, Combine::Min] {
            let (rows, extent) = (Idx::sym("p0"), Idx::from(37i64));
            let at = &(&Idx::var(0, &rows) * &extent) + &Idx::var(1, &extent);
            let value = Expr::load(0, dtype, vec![at]);
            let stages = vec![Stage { extent, combine, value }];
            let result = RowResult::PerRow(Expr::arg(0, dtype));
            let body = Body::Reduce { rows, stages, result };
            let spec = KernelSpec { inputs: vec![dtype], output: dtype, params: 1, body };
            for caps in devices() {
                for schedule in candidates(&spec, &[100], &caps).into_iter().take(8) {
                    check(&format!("{combine:?} {dtype}"), &spec, &schedule, &[100], &caps, &mut Seen::new());
                }
            }
        }
    }
}

#[test]
fn these_checks_find_what_they_look_for() {
    let entry = "@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) {";
    let out = "@group(0) @binding(0) var<storage, read_write> o: array<i32>;\n";
    for (body, wanted) in [
        ("if (i < 4u) { workgroupBarrier(); } o[0] = 1;", "not every invocation may reach"),
        ("if (i < 4u) { return; } workgroupBarrier(); o[0] = 1;", "not every invocation may reach"),
        ("for (var j = 0u; j < i; j++) { workgroupBarrier(); } o[0] = 1;", "walks alike"),
        ("for (var j = 0; j < f(1); j++) { workgroupBarrier(); } o[0] = 1;", "walks alike"),
        ("for (var j = 0u; j < g(i); j++) { workgroupBarrier(); } o[0] = 1;", "walks alike"),
        ("o[0] = o[1] / 0;", "Division by zero"),
        ("o[0] = o[1] << 32u;", "hift"),
        ("let f = 3.5e38f; o[0] = i32(f);", "error"),
        ("let f = 1.0h; o[0] = i32(f);", "f16"),
    ] {
        let functions = "fn f(k: i32) -> i32 { return o[k]; } fn g(k: u32) -> u32 { return k + 1u; }\n";
        let text = format!("{out}{functions}{entry} {body} }}");
        let found = faults(&text, false).join("\n");
        assert!(found.contains(wanted), "{body}: {found}");
    }
    let fine =
        format!("{out}{entry} for (var h = 4u; h > 0u; h /= 2u) {{ workgroupBarrier(); }} o[0] = 1; }}");
    assert_eq!(faults(&fine, false), Vec::<String>::new());
}

#[test]
fn rendering_is_the_same_every_time() {
    for (name, net) in corpus::models().into_iter().take(20) {
        let texts = || -> Vec<String> {
            let caps = Caps::default();
            let plan = net.plan(&caps);
            let target = Target::new(&Caps::default(), Dialect::Browser);
            let text = |spec: &KernelSpec| {
                let sizes = vec![5; spec.params];
                let schedule = default_schedule(spec, &sizes, &caps);
                let passes = render_passes("kernel", spec, &schedule, &sizes, &caps, target).unwrap();
                passes.into_iter().map(|(_, pass)| pass.shader.source).collect()
            };
            plan.kernels.iter().map(|k| text(&k.spec)).chain([plan.to_string()]).collect()
        };
        assert_eq!(texts(), texts(), "{name}");
    }
}
