//! Branches and loops. Branches are chosen or combined when the plan is made, and the bodies of loops are rounds.

use super::math::{Lowering, op};
use super::rounds::{Round, Rounds};
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
        "a body repeated; a condition or number of times that is computed is read back; at most 4096 times where a condition or shape depends on the repetition",
        repeat,
    ),
    op(
        "Scan",
        8,
        "a body repeated over slices of its inputs; at most 4096 where a shape depends on the slice",
        scan,
    ),
];

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
    let (guards, repeats) = (cx.program.guards.len(), cx.program.repeats.len());
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
    // What a branch that may not be taken assumed of sizes, and repeats, does not matter.
    cx.program.guards.truncate(guards);
    cx.program.repeats.truncate(repeats);
    cx.program.place = cx.node.place();
    chosen.map(|_| vec![])
}

fn repeat(cx: &mut Cx) -> Lowering {
    let step = graph(cx, "body")?;
    let count = match cx.optional(0) {
        Some(count) => Some(trips(cx, count)?),
        None => None,
    };
    let states = (2..cx.inputs.len()).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let going = match cx.optional(1) {
        Some(going) => going,
        None => cx.program.scalar(Expr::bool(true)),
    };
    let outputs = 1 + states.len();
    let slices = step.outputs.len().checked_sub(outputs);
    let slices = slices.ok_or_else(|| {
        cx.error(format!("the body gives {} values, wants {outputs} or more", step.outputs.len()))
    })?;
    let round = |cx: &mut Cx, number: &Idx, going: ValueId, states: &[ValueId]| {
        let number = cx.program.scalar(Expr::index(number.clone(), DType::I64));
        let outputs = body(cx, step, &[&[number, going], states].concat())?;
        let (states, slices) = outputs[1..].split_at(states.len());
        Ok(Round { going: outputs[0], states: states.to_vec(), slices: slices.to_vec() })
    };
    let (states, stacks) = Rounds { count, going, states, slices, round: &round }.lower(cx)?;
    Ok([states, stacks].concat())
}

/// A number of rounds: known, or computed and read back, in which case the plan is for any.
fn trips(cx: &mut Cx, count: ValueId) -> Result<Idx, Stop> {
    let p = &mut *cx.program;
    let count = match p.sizes(count) {
        Err(Stop::NeedsValue(_)) => {
            // What is read back as a count is int32.
            let most = Expr::int(p.dtype(count), i32::MAX.into());
            let zeros = vec![Idx::from(0i64); p.rank(count)];
            let count = p.load(count, &zeros).smaller(most).cast(DType::I32);
            let count = p.scalar(count);
            p.computed_size(count)?
        }
        counts => counts?.first().cloned().ok_or_else(|| p.error("the number of repetitions is empty"))?,
    };
    Ok(count.larger(&Idx::from(0i64)))
}

/// Before opset 9 every input has a batch axis in front, and a sequence runs on its own: a round for each.
fn batched_scan(cx: &mut Cx) -> Lowering {
    let lens = cx.optional(0);
    let inputs = (1..cx.inputs.len()).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let first = inputs.first().ok_or_else(|| cx.error("too few inputs"))?;
    let batch =
        cx.program.shape(*first).first().cloned().ok_or_else(|| cx.error("an input has no batch axis"))?;
    if let Some(lens) = lens {
        let [len] = cx.program.shape(lens) else { return Err(cx.error("sequence_lens wants one axis")) };
        let len = len.clone();
        cx.program.equate(&batch, &len, "sequences and their lengths")?;
    }
    let round = |cx: &mut Cx, number: &Idx, going: ValueId, _: &[ValueId]| {
        let row = |&x: &ValueId| {
            let shape = cx.program.shape(x)[1..].to_vec();
            cx.program.view(x, shape, |i| [std::slice::from_ref(number), i].concat())
        };
        let inputs = inputs.iter().map(row).collect();
        let len = lens.map(|lens| cx.program.load(lens, std::slice::from_ref(number)).cast(DType::I32));
        Ok(Round { going, states: vec![], slices: scan_over(cx, inputs, "directions", len)? })
    };
    let (going, slices) = (cx.program.scalar(Expr::bool(true)), graph(cx, "body")?.outputs.len());
    let rounds = Rounds { count: Some(batch), going, states: vec![], slices, round: &round };
    Ok(rounds.lower(cx)?.1)
}

fn scan(cx: &mut Cx) -> Lowering {
    if cx.opset < 9 {
        return batched_scan(cx);
    }
    let inputs = cx.all_inputs()?;
    scan_over(cx, inputs, "scan_input_directions", None)
}

/// A scan over the slices of `inputs`. Where it runs over the first `own` of them only, the states stay what they are after
/// these, and what would be collected is 0.
fn scan_over(cx: &mut Cx, inputs: Vec<ValueId>, directions: &str, own: Option<Expr>) -> Lowering {
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
    let (states, scanned) = inputs.split_at(states);
    let axes = axes.iter().zip(scanned).map(|(&axis, &x)| cx.axis(axis, cx.program.rank(x)));
    let axes = axes.collect::<Result<Vec<usize>, _>>()?;
    let lens = axes.iter().zip(scanned).map(|(&axis, &x)| cx.program.shape(x)[axis].clone());
    let lens: Vec<Idx> = lens.collect();
    let len = lens.first().ok_or_else(|| cx.error("wants at least one scanned input"))?;
    for other in &lens {
        cx.program.equate(len, other, "lengths of scanned inputs")?;
    }
    let mirrored = |number: &Idx| &(len - number) - &Idx::from(1i64);
    let own = own.map(|own| own.smaller(Expr::number(len)));
    // A sequence backwards begins at its own end.
    let backwards = |number: &Idx| match &own {
        Some(own) => (own - Expr::number(number) - 1.0).larger(0.0).to_position(len),
        None => mirrored(number),
    };
    let round = |cx: &mut Cx, number: &Idx, going: ValueId, carried: &[ValueId]| {
        let mut values = carried.to_vec();
        for ((&x, &axis), &reversed) in scanned.iter().zip(&axes).zip(&reversed) {
            let mut shape = cx.program.shape(x).to_vec();
            shape.remove(axis);
            let place = if reversed != 0 { backwards(number) } else { number.clone() };
            values.push(cx.program.view(x, shape, |i| {
                let mut at = i.to_vec();
                at.insert(axis, place);
                at
            }));
        }
        let mut states = body(cx, step, &values)?;
        let mut slices = states.split_off(carried.len());
        if let Some(own) = &own {
            let runs = Expr::number(number).below(own);
            for (new, &old) in states.iter_mut().zip(carried) {
                *new = cx.program.elementwise(&[*new, old], |e| runs.select(&e[0], &e[1]))?;
            }
            for slice in &mut slices {
                let none = cx.number(*slice, 0.0);
                *slice = cx.program.unary(*slice, |e| runs.select(e, &none));
            }
        }
        Ok(Round { going, states, slices })
    };
    let going = cx.program.scalar(Expr::bool(true));
    let rounds =
        Rounds { count: Some(len.clone()), going, states: states.to_vec(), slices: outputs, round: &round };
    let (mut outputs, stacks) = rounds.lower(cx)?;
    for ((stack, axis), reversed) in stacks.into_iter().zip(out_axes).zip(out_reversed) {
        let axis = cx.axis(axis, cx.program.rank(stack))?;
        let mut shape = cx.program.shape(stack).to_vec();
        let rounds = shape.remove(0);
        shape.insert(axis, rounds);
        outputs.push(cx.program.view(stack, shape, |i| {
            let mut at = i.to_vec();
            let number = at.remove(axis);
            at.insert(0, if reversed != 0 { mirrored(&number) } else { number });
            at
        }));
    }
    Ok(outputs)
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
        for count in [0i64, 1, 100, 5000] {
            let next = |v: &f32| Some(v / 2.0 + 1.0);
            let all: Vec<f32> = std::iter::successors(Some(0f32), next).take(count as usize + 1).collect();
            let (value, seen) = (all[count as usize], &all[1..]);
            let inputs = [t(&[], &[count]), t(&[], &[true]), f32s(&[1], &[0.0])];
            let inputs = inputs.into_iter().chain([f32s(&[], &[0.5]), f32s(&[], &[1.0])]).collect::<Vec<_>>();
            let want = [f32s(&[1], &[value]), f32s(&[count as usize, 1], seen)];
            Case::new("Loop", &[("body", halving())], inputs).captured(2).outputs(2).gives(want);
        }
    }

    /// A state that grows by `x3` each time.
    #[test]
    fn states_that_grow() {
        let nodes: &[(&str, &[&str], &str)] =
            &[("Identity", &["going"], "on"), ("Concat", &["v", "x3"], "w")];
        let mut growing = body(&["i", "going", "v"], nodes, &["on", "w"]);
        if let Attribute::Graph(graph) = &mut growing {
            graph.nodes[1].attributes.insert("axis".into(), Attribute::Int(0));
        }
        let case = |count: i64| {
            let inputs = [t(&[], &[count]), t(&[], &[true]), f32s(&[1], &[1.0]), f32s(&[2], &[2.0, 3.0])];
            Case::new("Loop", &[("body", growing.clone())], inputs).captured(1)
        };
        case(0).gives([f32s(&[1], &[1.0])]);
        case(2).gives([f32s(&[5], &[1.0, 2.0, 3.0, 2.0, 3.0])]);
        let why = "Loop \"node\": more than 4096 repetitions that are written out, since Loop \"node\": a state's size 1 becomes 3";
        let refusal = case(5000).refusal();
        assert!(refusal.contains(why), "{refusal}");
    }

    /// The sums of each row, one after another: a scan in a scan, the inner one from the row's end.
    #[test]
    fn scans_in_scans() {
        let inner: &[(&str, &[&str], &str)] = &[("Add", &["s", "x"], "sum"), ("Identity", &["sum"], "seen")];
        let inner = body(&["s", "x"], inner, &["sum", "seen"]);
        let outer: &[(&str, &[&str], &str)] =
            &[("Scan", &["total", "row"], "next"), ("Identity", &["next"], "last")];
        let mut outer = body(&["total", "row"], outer, &["next", "seen", "last"]);
        if let Attribute::Graph(graph) = &mut outer {
            let scan = &mut graph.nodes[0];
            scan.outputs.push("seen".into());
            scan.attributes.insert("body".into(), inner);
            scan.attributes.insert("num_scan_inputs".into(), Attribute::Int(1));
            scan.attributes.insert("scan_input_directions".into(), Attribute::Ints(vec![1]));
        }
        let attributes = [("body", outer), ("num_scan_inputs", Attribute::Int(1))];
        let inputs = [f32s(&[], &[10.0]), f32s(&[2, 3], &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0])];
        let want = [
            f32s(&[], &[73.0]),
            f32s(&[2, 3], &[14.0, 16.0, 17.0, 49.0, 65.0, 73.0]),
            f32s(&[2], &[17.0, 73.0]),
        ];
        Case::new("Scan", &attributes, inputs).outputs(3).gives(want);
    }

    /// Sums of two sequences, of two and of three elements, the second input backwards.
    #[test]
    fn sequences_of_their_own_lengths() {
        let nodes: &[(&str, &[&str], &str)] =
            &[("Add", &["s", "x"], "sum"), ("Mul", &["sum", "y"], "product")];
        let attributes = [
            ("body", body(&["s", "x", "y"], nodes, &["sum", "product"])),
            ("num_scan_inputs", Attribute::Int(2)),
            ("directions", Attribute::Ints(vec![0, 1])),
        ];
        let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let inputs = [t(&[2], &[2i64, 3]), f32s(&[2], &[0.0, 10.0]), x.clone(), x];
        let want = [f32s(&[2], &[3.0, 25.0]), f32s(&[2, 3], &[2.0, 3.0, 0.0, 84.0, 95.0, 100.0])];
        let case = Case { opset: 8, ..Case::new("Scan", &attributes, inputs) };
        case.outputs(2).gives(want);
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
