//! Branches and loops. The plan has none: branches are chosen or combined, and loops unrolled, when it is made.

use super::join::join;
use super::math::{Lowering, op};
use super::scope::body;
use super::{Cx, OpDef};
use crate::expr::{Expr, Idx};
use crate::graph::{Attribute, Graph};
use crate::ir::{Stop, ValueId};
use crate::tensor::DType;

/// The family.
pub const OPS: &[OpDef] = &[
    op(
        "If",
        1,
        "one of two branches; both are computed where the condition is and their shapes agree, else the condition is read back",
        branch,
    ),
    op(
        "Loop",
        1,
        "a body repeated at most 4096 times; a condition or number of times that is computed is read back",
        repeat,
    ),
    op("Scan", 8, "a body repeated over at most 4096 slices of its inputs", scan),
];

/// Repetitions at the most. A plan of so many small bodies takes some seconds to make.
const MOST: usize = 4096;

fn graph<'a>(cx: &Cx<'a>, name: &str) -> Result<&'a Graph, Stop> {
    match cx.node.attributes.get(name) {
        Some(Attribute::Graph(graph)) => Ok(graph),
        _ => Err(cx.error(format!("attribute {name:?} wants a graph"))),
    }
}

fn branch(cx: &mut Cx) -> Lowering {
    let condition = cx.input(0)?;
    let branches = [graph(cx, "then_branch")?, graph(cx, "else_branch")?];
    let chosen = cx.program.constants(condition);
    if let Ok(values) = &chosen {
        let on = values.first().is_some_and(|v| v.to_bool());
        return body(cx, branches[usize::from(!on)], &[]);
    }
    let guards = cx.program.guards.len();
    if let (Ok(yes), Ok(no)) = (body(cx, branches[0], &[]), body(cx, branches[1], &[])) {
        let alike = |(&a, &b): (&ValueId, &ValueId)| {
            cx.program.dtype(a) == cx.program.dtype(b) && cx.program.shape(a) == cx.program.shape(b)
        };
        if yes.len() == no.len() && yes.iter().zip(&no).all(alike) {
            let zeros = vec![Idx::from(0i64); cx.program.rank(condition)];
            let on = cx.program.load(condition, &zeros);
            return yes
                .iter()
                .zip(&no)
                .map(|(&a, &b)| cx.program.elementwise(&[a, b], |e| on.select(&e[0], &e[1])))
                .collect();
        }
    }
    // What a branch that may not be taken assumed of sizes does not matter.
    cx.program.guards.truncate(guards);
    cx.program.place = cx.node.place();
    chosen.map(|_| vec![])
}

/// Whether a condition holds; one that is left out does.
fn holds(cx: &Cx, condition: Option<ValueId>) -> Result<bool, Stop> {
    let Some(condition) = condition else { return Ok(true) };
    Ok(cx.program.constants(condition)?.first().is_some_and(|v| v.to_bool()))
}

fn repeat(cx: &mut Cx) -> Lowering {
    let step = graph(cx, "body")?;
    let count = match cx.optional(0) {
        Some(count) => cx.program.integers(count)?.first().copied().unwrap_or(0),
        None => i64::MAX,
    };
    let mut carried = (2..cx.inputs.len()).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let mut condition = cx.optional(1);
    let mut collected: Vec<Vec<ValueId>> = Vec::new();
    let mut done = 0;
    let kept = |carried: &[ValueId], collected: &[Vec<ValueId>]| {
        carried.iter().chain(collected.iter().flatten()).copied().collect::<Vec<_>>()
    };
    while done < count && holds(cx, condition).map_err(|stop| stop.keeping(kept(&carried, &collected)))? {
        if done as usize == MOST {
            return Err(cx.unsupported(format!("more than {MOST} repetitions")));
        }
        let number = cx.program.scalar(Expr::int(DType::I64, done));
        let going = match condition {
            Some(condition) => condition,
            None => cx.program.scalar(Expr::bool(true)),
        };
        let outputs = body(cx, step, &[vec![number, going], carried.clone()].concat());
        let outputs = outputs.map_err(|stop| stop.keeping(kept(&carried, &collected)))?;
        let (next, rest) = outputs.split_first().ok_or_else(|| cx.error("the body has no outputs"))?;
        if rest.len() < carried.len() {
            return Err(cx.error(format!("the body gives {} values of {}", rest.len(), carried.len())));
        }
        let (values, slices) = rest.split_at(carried.len());
        condition = Some(*next);
        carried = values.to_vec();
        collect(cx, &mut collected, slices, &[])?;
        done += 1;
    }
    if done == 0 {
        let number = cx.program.scalar(Expr::int(DType::I64, 0));
        let going = cx.program.scalar(Expr::bool(true));
        let inputs = [vec![number, going], carried.clone()].concat();
        let empty = no_slices(cx, step, &inputs, carried.len() + 1, &[])?;
        carried.extend(empty);
    }
    carried.extend(collected.into_iter().map(|slices| join(cx.program, slices, 0)));
    Ok(carried)
}

/// Append a slice to each list, with an axis of 1 in front, or at `axes`.
fn collect(cx: &mut Cx, lists: &mut Vec<Vec<ValueId>>, slices: &[ValueId], axes: &[i64]) -> Result<(), Stop> {
    lists.resize(slices.len(), Vec::new());
    for (i, &slice) in slices.iter().enumerate() {
        let mut shape = cx.program.shape(slice).to_vec();
        let axis = cx.axis(axes.get(i).copied().unwrap_or(0), shape.len() + 1)?;
        shape.insert(axis, Idx::from(1i64));
        lists[i].push(cx.program.reshape(slice, shape)?);
    }
    Ok(())
}

/// What is collected over no repetitions: the outputs of `step` behind the first `skipped`, none of them, with an axis of
/// 0 in front, or at `axes`. The body is lowered for their dtypes and shapes alone, and nothing reads it.
fn no_slices(
    cx: &mut Cx,
    step: &Graph,
    inputs: &[ValueId],
    skipped: usize,
    axes: &[i64],
) -> Result<Vec<ValueId>, Stop> {
    if step.outputs.len() <= skipped {
        return Ok(vec![]);
    }
    let guards = cx.program.guards.len();
    let outputs = body(cx, step, inputs)?;
    cx.program.guards.truncate(guards);
    let mut empty = Vec::new();
    for (i, &slice) in outputs[skipped..].iter().enumerate() {
        let mut shape = cx.program.shape(slice).to_vec();
        let axis = cx.axis(axes.get(i).copied().unwrap_or(0), shape.len() + 1)?;
        shape.insert(axis, Idx::from(0i64));
        let zero = Expr::int(DType::I32, 0).cast(cx.program.dtype(slice));
        empty.push(cx.program.map(shape, zero));
    }
    Ok(empty)
}

/// Before opset 9 every input has a batch axis in front, and a sequence runs on its own.
fn batched_scan(cx: &mut Cx) -> Lowering {
    if cx.optional(0).is_some() {
        return Err(cx.unsupported("sequence_lens"));
    }
    let inputs = (1..cx.inputs.len()).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let first = inputs.first().ok_or_else(|| cx.error("too few inputs"))?;
    let batch = cx.program.known_size(&cx.program.shape(*first)[0])?;
    if batch == 0 || batch > MOST {
        return Err(cx.unsupported(format!("a batch of {batch}; 1 to {MOST} are")));
    }
    let mut outputs: Vec<Vec<ValueId>> = Vec::new();
    for b in 0..batch {
        let row = |cx: &mut Cx, x: ValueId| {
            let shape = cx.program.shape(x)[1..].to_vec();
            cx.program.view(x, shape, |i| [&[Idx::from(b)], i].concat())
        };
        let inputs = inputs.iter().map(|&x| row(cx, x)).collect();
        let all = scan_over(cx, inputs, "directions").map_err(|stop| stop.keeping(outputs.concat()))?;
        collect(cx, &mut outputs, &all, &[])?;
    }
    Ok(outputs.into_iter().map(|rows| join(cx.program, rows, 0)).collect())
}

fn scan(cx: &mut Cx) -> Lowering {
    if cx.opset < 9 {
        return batched_scan(cx);
    }
    let inputs = cx.all_inputs()?;
    scan_over(cx, inputs, "scan_input_directions")
}

fn scan_over(cx: &mut Cx, inputs: Vec<ValueId>, directions: &str) -> Lowering {
    let step = graph(cx, "body")?;
    let scanned = cx.int_or("num_scan_inputs", 0)? as usize;
    let states = inputs.len().checked_sub(scanned).ok_or_else(|| cx.error("too few inputs"))?;
    let outputs = step.outputs.len().checked_sub(states).ok_or_else(|| cx.error("too few outputs"))?;
    let list = |name: &str, len: usize| -> Result<Vec<i64>, Stop> {
        let values = cx.ints(name)?.unwrap_or_else(|| vec![0; len]);
        if values.len() == len { Ok(values) } else { Err(cx.error(format!("{name:?} wants {len} numbers"))) }
    };
    let (axes, reversed) = (list("scan_input_axes", scanned)?, list(directions, scanned)?);
    let out_axes = list("scan_output_axes", outputs)?;
    let out_reversed = list("scan_output_directions", outputs)?;
    let mut carried = inputs[..states].to_vec();
    let scanned = &inputs[states..];
    let axes = axes.iter().zip(scanned).map(|(&axis, &x)| cx.axis(axis, cx.program.rank(x)));
    let axes = axes.collect::<Result<Vec<usize>, _>>()?;
    let (Some(&axis), Some(&first)) = (axes.first(), scanned.first()) else {
        return Err(cx.error("wants at least one scanned input"));
    };
    let len = cx.program.known_size(&cx.program.shape(first)[axis])?;
    if len > MOST {
        return Err(cx.unsupported(format!("{len} repetitions; at most {MOST} are")));
    }
    // What the body is given for slice `t`.
    let slices = |cx: &mut Cx, carried: &[ValueId], t: usize| {
        let mut values = carried.to_vec();
        for ((&x, &axis), &reversed) in scanned.iter().zip(&axes).zip(&reversed) {
            let mut shape = cx.program.shape(x).to_vec();
            shape.remove(axis);
            let place = Idx::from(if reversed != 0 { len.saturating_sub(1 + t) } else { t });
            values.push(cx.program.view(x, shape, |i| {
                let mut at = i.to_vec();
                at.insert(axis, place);
                at
            }));
        }
        values
    };
    if len == 0 {
        let values = slices(cx, &carried, 0);
        let empty = no_slices(cx, step, &values, states, &out_axes)?;
        carried.extend(empty);
        return Ok(carried);
    }
    let mut collected: Vec<Vec<ValueId>> = Vec::new();
    for t in 0..len {
        let values = slices(cx, &carried, t);
        let kept = values.iter().chain(collected.iter().flatten()).copied();
        let all = body(cx, step, &values).map_err(|stop| stop.keeping(kept))?;
        carried = all[..states].to_vec();
        collect(cx, &mut collected, &all[states..], &out_axes)?;
    }
    for (i, mut slices) in collected.into_iter().enumerate() {
        if out_reversed[i] != 0 {
            slices.reverse();
        }
        let rank = cx.program.rank(slices[0]);
        let axis = cx.axis(out_axes[i], rank)?;
        carried.push(join(cx.program, slices, axis));
    }
    Ok(carried)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Node, ValueInfo};
    use crate::ops::case::{Case, f32s, t};

    /// A graph of nodes `(operator, inputs, output)`.
    fn body(inputs: &[&str], nodes: &[(&str, &[&str], &str)], outputs: &[&str]) -> Attribute {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let info = |name: String| ValueInfo { name, dtype: DType::F32, shape: None };
        let node = |(op, inputs, output): &(&str, &[&str], &str)| Node {
            name: output.to_string(),
            domain: String::new(),
            op: op.to_string(),
            inputs: names(inputs),
            outputs: names(&[output]),
            attributes: Default::default(),
        };
        Attribute::Graph(Box::new(Graph {
            inputs: names(inputs).into_iter().map(info).collect(),
            outputs: names(outputs).into_iter().map(info).collect(),
            nodes: nodes.iter().map(node).collect(),
            opsets: [(String::new(), 24)].into(),
            ..Graph::default()
        }))
    }

    /// The branches see a name of the graph around them, and the condition is computed.
    #[test]
    fn both_branches_where_the_condition_is_computed() {
        let attributes = [
            ("then_branch", body(&[], &[("Not", &["x0"], "a")], &["a"])),
            ("else_branch", body(&[], &[("Identity", &["x0"], "b")], &["b"])),
        ];
        for x in [true, false] {
            Case::new("If", &attributes, [t(&[], &[x])]).gives([t(&[], &[false])]);
        }
    }

    #[test]
    fn loops_carry_and_collect() {
        let nodes: &[(&str, &[&str], &str)] =
            &[("Add", &["v", "v"], "w"), ("Identity", &["going"], "on"), ("Identity", &["w"], "seen")];
        let attributes = [("body", body(&["i", "going", "v"], nodes, &["on", "w", "seen"]))];
        let inputs = [t(&[], &[3i64]), t(&[], &[true]), f32s(&[1], &[1.0])];
        let want = [f32s(&[1], &[8.0]), f32s(&[3, 1], &[2.0, 4.0, 8.0])];
        Case::new("Loop", &attributes, inputs).outputs(2).gives(want);
    }

    /// `v = v / 2 + 1`, collected.
    fn halving() -> Attribute {
        let nodes: &[(&str, &[&str], &str)] = &[
            ("Mul", &["v", "x3"], "half"),
            ("Add", &["half", "x4"], "w"),
            ("Identity", &["going"], "on"),
            ("Identity", &["w"], "seen"),
        ];
        body(&["i", "going", "v"], nodes, &["on", "w", "seen"])
    }

    #[test]
    fn loops_without_and_with_many_repetitions() {
        // The recurrence itself, in float32; the value tends to 2.
        for count in [0i64, 1, 100, 1000] {
            let next = |v: &f32| Some(v / 2.0 + 1.0);
            let all: Vec<f32> = std::iter::successors(Some(0f32), next).take(count as usize + 1).collect();
            let (value, seen) = (all[count as usize], &all[1..]);
            let inputs = [t(&[], &[count]), t(&[], &[true]), f32s(&[1], &[0.0])];
            let inputs = inputs.into_iter().chain([f32s(&[], &[0.5]), f32s(&[], &[1.0])]).collect::<Vec<_>>();
            let want = [f32s(&[1], &[value]), f32s(&[count as usize, 1], seen)];
            Case::new("Loop", &[("body", halving())], inputs).captured(2).outputs(2).gives(want);
        }
    }

    #[test]
    fn loops_with_too_many_repetitions() {
        let inputs = [t(&[], &[5000i64]), t(&[], &[true]), f32s(&[1], &[0.0])];
        let inputs = inputs.into_iter().chain([f32s(&[], &[0.5]), f32s(&[], &[1.0])]).collect::<Vec<_>>();
        let refusal = Case::new("Loop", &[("body", halving())], inputs).captured(2).outputs(2).refusal();
        assert!(refusal.contains("Loop \"node\": more than 4096 repetitions"), "{refusal}");
    }

    #[test]
    fn a_scan_over_nothing() {
        let nodes: &[(&str, &[&str], &str)] = &[("Add", &["s", "x"], "sum"), ("Identity", &["sum"], "seen")];
        let attributes =
            [("body", body(&["s", "x"], nodes, &["sum", "seen"])), ("num_scan_inputs", Attribute::Int(1))];
        let inputs = [f32s(&[2], &[3.0, 4.0]), f32s(&[0, 2], &[])];
        let want = [f32s(&[2], &[3.0, 4.0]), f32s(&[0, 2], &[])];
        Case::new("Scan", &attributes, inputs).outputs(2).gives(want);
    }

    #[test]
    fn scans_read_slices_backwards() {
        let nodes: &[(&str, &[&str], &str)] = &[("Add", &["s", "x"], "sum"), ("Identity", &["sum"], "seen")];
        let attributes = [
            ("body", body(&["s", "x"], nodes, &["sum", "seen"])),
            ("num_scan_inputs", Attribute::Int(1)),
            ("scan_input_directions", Attribute::Ints(vec![1])),
        ];
        let inputs = [f32s(&[1], &[0.0]), f32s(&[3, 1], &[1.0, 2.0, 4.0])];
        let want = [f32s(&[1], &[7.0]), f32s(&[3, 1], &[4.0, 6.0, 7.0])];
        Case::new("Scan", &attributes, inputs).outputs(2).gives(want);
    }
}
