//! What `inspect` says of a model and its plan, as text and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tilewright::graph::{Attribute, Dim, Graph, ValueInfo};

use crate::planned::{Machine, Planned};
use crate::table::{Align, bytes, shape, table};

/// What can be counted in a graph.
pub struct Summary {
    /// Nodes by domain and operator, those of subgraphs among them.
    operators: BTreeMap<(String, String), usize>,
    initializers_bytes: u64,
}

impl Summary {
    /// Of `graph`.
    pub fn of(graph: &Graph) -> Summary {
        let mut operators = BTreeMap::new();
        count(graph, &mut operators);
        let initializers_bytes = graph.initializers.values().map(|t| t.bytes().len() as u64).sum();
        Summary { operators, initializers_bytes }
    }

    fn nodes(&self) -> usize {
        self.operators.values().sum()
    }

    /// Operators with their counts, the most frequent first.
    fn ranked(&self) -> Vec<(String, usize)> {
        let name = |(domain, op): &(String, String)| {
            if domain.is_empty() { op.clone() } else { format!("{domain}.{op}") }
        };
        let mut ranked: Vec<(String, usize)> = self.operators.iter().map(|(k, &n)| (name(k), n)).collect();
        ranked.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        ranked
    }

    /// The report's first part.
    pub fn text(&self, graph: &Graph, unsupported: &[String]) -> String {
        let opsets: Vec<String> = graph.opsets.iter().map(|(d, v)| format!("{} {v}", domain(d))).collect();
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut rows = vec![
            row("opset", opsets.join(", ")),
            row("nodes", self.nodes().to_string()),
            row("initializers", format!("{}, {}", graph.initializers.len(), bytes(self.initializers_bytes))),
        ];
        let ranked = self.ranked();
        let width = ranked.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        push_list(&mut rows, "inputs", value_lines(&graph.inputs));
        push_list(&mut rows, "outputs", value_lines(&graph.outputs));
        let operators = ranked.into_iter().map(|(name, count)| format!("{name:<width$}  {count:>4}"));
        push_list(&mut rows, "operators", operators.collect());
        push_list(&mut rows, "unsupported", unsupported.to_vec());
        table(&[Align::Left, Align::Left], &rows)
    }

    /// The same for other programs.
    pub fn json(&self, graph: &Graph) -> Json {
        let opsets: BTreeMap<&str, i64> = graph.opsets.iter().map(|(d, v)| (domain(d), *v)).collect();
        json!({
            "inputs": graph.inputs.iter().map(value_json).collect::<Vec<_>>(),
            "outputs": graph.outputs.iter().map(value_json).collect::<Vec<_>>(),
            "opsets": opsets,
            "nodes": self.nodes(),
            "operators": self.ranked().into_iter().collect::<BTreeMap<_, _>>(),
            "initializers": { "count": graph.initializers.len(), "size_bytes": self.initializers_bytes },
        })
    }
}

fn count(graph: &Graph, operators: &mut BTreeMap<(String, String), usize>) {
    for node in &graph.nodes {
        *operators.entry((node.domain.clone(), node.op.clone())).or_default() += 1;
        for attribute in node.attributes.values() {
            if let Attribute::Graph(graph) = attribute {
                count(graph, operators);
            }
        }
    }
}

fn domain(name: &str) -> &str {
    if name.is_empty() { "ai.onnx" } else { name }
}

/// Rows of one name, which stands in the first.
fn push_list(rows: &mut Vec<Vec<String>>, name: &str, lines: Vec<String>) {
    let lines = if lines.is_empty() { vec!["none".into()] } else { lines };
    for (number, line) in lines.into_iter().enumerate() {
        rows.push(vec![if number == 0 { name.into() } else { String::new() }, line]);
    }
}

fn value_lines(values: &[ValueInfo]) -> Vec<String> {
    let cells = |info: &ValueInfo| {
        let dims = info.shape.as_deref().map_or("of any shape".into(), shape);
        vec![info.name.clone(), info.dtype.to_string(), dims]
    };
    let rows: Vec<Vec<String>> = values.iter().map(cells).collect();
    table(&[Align::Left; 3], &rows).lines().map(str::to_owned).collect()
}

fn value_json(info: &ValueInfo) -> Json {
    let dim = |dim: &Dim| match dim {
        Dim::Static(size) => json!(size),
        Dim::Symbol(name) => json!(name),
        Dim::Unknown => Json::Null,
    };
    let dims = info.shape.as_ref().map(|dims| dims.iter().map(dim).collect::<Vec<_>>());
    json!({ "name": info.name, "dtype": info.dtype.name(), "shape": dims })
}

fn sizes(planned: &Planned) -> String {
    let sizes: Vec<String> = planned.symbols.iter().map(|(name, size)| format!("{name} = {size}")).collect();
    match (sizes.is_empty(), planned.specialised) {
        (false, _) => format!(", with {}", sizes.join(", ")),
        (true, true) => ", with every symbolic dimension fixed: no plan holds for all their sizes".into(),
        (true, false) => String::new(),
    }
}

/// Dispatches and memory.
pub fn costs_text(planned: &Planned, machine: &Machine) -> String {
    let plan = &planned.plan;
    let memory = planned.memory();
    let once = plan.steps.len() - plan.dispatches();
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("planned for ", format!("{}{}", machine.describe(), sizes(planned))),
        row(
            "dispatches",
            format!("{} per run, {once} when loading, of {} kernels", plan.dispatches(), plan.kernels.len()),
        ),
        row("memory", format!("{} at peak", bytes(memory.peak_bytes()))),
        row("", format!("{} of weights", bytes(memory.weights_bytes))),
        row("", format!("{} computed from weights when loading", bytes(memory.once_bytes))),
        row("", format!("{} of inputs", bytes(memory.inputs_bytes))),
        row(
            "",
            format!(
                "{} of arenas ({} if no memory were reused)",
                bytes(memory.arena_bytes),
                bytes(memory.unshared_bytes)
            ),
        ),
    ];
    table(&[Align::Left, Align::Left], &rows)
}

/// Dispatches and memory, added to a JSON object.
pub fn add_costs(value: &mut Json, planned: &Planned) {
    let memory = planned.memory();
    let dims: BTreeMap<&str, i64> = planned.symbols.iter().map(|(name, size)| (&**name, *size)).collect();
    value["dispatches"] = planned.plan.dispatches().into();
    value["dispatches_at_load"] = (planned.plan.steps.len() - planned.plan.dispatches()).into();
    value["kernel_count"] = planned.plan.kernels.len().into();
    value["symbols"] = json!(dims);
    value["specialised"] = planned.specialised.into();
    value["memory"] = json!({
        "weights_bytes": memory.weights_bytes,
        "once_bytes": memory.once_bytes,
        "inputs_bytes": memory.inputs_bytes,
        "arena_bytes": memory.arena_bytes,
        "unshared_bytes": memory.unshared_bytes,
        "peak_bytes": memory.peak_bytes(),
    });
}

/// Tensor numbers by arena, in the order of their offsets.
fn arenas(planned: &Planned) -> Vec<Vec<usize>> {
    let places = &planned.layout.places;
    let mut arenas = vec![Vec::new(); planned.layout.arena_bytes.len()];
    for (&tensor, place) in places {
        arenas[place.arena].push(tensor);
    }
    for tensors in &mut arenas {
        tensors.sort_by_key(|tensor| places[tensor].offset_bytes);
    }
    arenas
}

/// The steps, and what lies where.
pub fn plan_text(planned: &Planned) -> String {
    let mut text = planned.plan.to_string();
    for (number, tensors) in arenas(planned).into_iter().enumerate() {
        text += &format!("\narena {number}, {}\n", bytes(planned.layout.arena_bytes[number]));
        let row = |tensor: usize| {
            let offset = planned.layout.places[&tensor].offset_bytes.to_string();
            let size = planned.layout.size_bytes[tensor].to_string();
            let name = planned.plan.tensors[tensor].name.clone();
            vec![offset, size, name, shape(&planned.layout.shapes[tensor])]
        };
        let head = ["  offset", "bytes", "tensor", "shape"].map(String::from).to_vec();
        let rows: Vec<Vec<String>> = [head].into_iter().chain(tensors.into_iter().map(row)).collect();
        text += &table(&[Align::Right, Align::Right, Align::Left, Align::Left], &rows);
    }
    text
}

/// The same for other programs.
pub fn plan_json(planned: &Planned) -> Json {
    let plan = &planned.plan;
    let steps = plan.steps.iter().map(|step| {
        let output = &plan.tensors[step.output];
        json!({
            "kernel": plan.kernels[step.kernel].label,
            "at_load": planned.is_once(step),
            "output": output.name,
            "dtype": output.dtype.name(),
            "shape": output.shape.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "inputs": step.inputs.iter().map(|&t| &plan.tensors[t].name).collect::<Vec<_>>(),
        })
    });
    let arenas = arenas(planned).into_iter().zip(&planned.layout.arena_bytes).map(|(tensors, size_bytes)| {
        let place = |tensor: usize| {
            json!({
                "tensor": plan.tensors[tensor].name,
                "offset_bytes": planned.layout.places[&tensor].offset_bytes,
                "size_bytes": planned.layout.size_bytes[tensor],
            })
        };
        json!({
            "size_bytes": size_bytes,
            "tensors": tensors.into_iter().map(place).collect::<Vec<_>>(),
        })
    });
    let checks = plan.guards.iter().map(|guard| guard.to_string());
    json!({
        "steps": steps.collect::<Vec<_>>(),
        "arenas": arenas.collect::<Vec<_>>(),
        "checks": checks.collect::<Vec<_>>(),
    })
}
