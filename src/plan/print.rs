//! A plan as text: inputs, steps, outputs.

use std::fmt;

use super::{InPlace, Origin, Plan, Source};
use crate::expr::Idx;

fn dims(shape: &[Idx]) -> String {
    let dims: Vec<String> = shape.iter().map(|d| d.to_string()).collect();
    format!("[{}]", dims.join(", "))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tensor in &self.tensors {
            if let Origin::Input(_) = tensor.origin {
                writeln!(f, "input  {:<28} {} {}", tensor.name, tensor.dtype, dims(&tensor.shape))?;
            }
        }
        for (number, step) in self.steps.iter().enumerate() {
            let output = &self.tensors[step.output];
            let when = if matches!(output.origin, Origin::Once) { "once" } else { "step" };
            let kernel = &self.kernels[step.kernel].label;
            if let Some(repeat) = self.repeats.iter().find(|repeat| repeat.steps.start == number) {
                writeln!(f, "repeat steps {number} to {} {} times", repeat.steps.end - 1, repeat.count)?;
            }
            let inputs: Vec<&str> = step.inputs.iter().map(|&t| self.tensors[t].name.as_str()).collect();
            writeln!(
                f,
                "{when} {number:>4} {kernel:<12} {} {} {} <- {}",
                output.name,
                output.dtype,
                dims(&output.shape),
                inputs.join(", ")
            )?;
        }
        for (number, InPlace { base, step, .. }) in &self.updates {
            let (kernel, base) = (&self.kernels[step.kernel].label, &self.tensors[*base].name);
            let inputs: Vec<&str> = step.inputs.iter().map(|&t| self.tensors[t].name.as_str()).collect();
            writeln!(f, "or   {number:>4} {kernel:<12} in place of {base} <- {}", inputs.join(", "))?;
        }
        for output in &self.outputs {
            let from = match &output.source {
                Source::Device(tensor) => self.tensors[*tensor].name.clone(),
                Source::Host(_) => "host, from sizes".into(),
                Source::Constant(_) => "constant".into(),
            };
            writeln!(f, "output {:<28} {} {} <- {from}", output.name, output.dtype, dims(&output.shape))?;
        }
        for guard in &self.guards {
            writeln!(f, "check  {guard}")?;
        }
        Ok(())
    }
}
