//! Plans and kernels as text: what changes in them is seen and judged. `TILEWRIGHT_BLESS=1` writes the files anew.

mod support;

use support::{corpus, net::Net, root};
use tilewright::kernel::{Caps, ContractSchedule, ConvSchedule, MapSchedule, ReduceSchedule, Schedule};
use tilewright::wgsl::{Dialect, Target, render};

/// A device with no bearing on the machine at hand.
fn caps() -> Caps {
    Caps { f16: true, ..Caps::default() }
}

/// Compares `text` with the golden file of that name.
fn compare(name: &str, text: &str) {
    let path = root().join("tests/golden").join(name);
    if std::env::var("TILEWRIGHT_BLESS").is_ok_and(|v| v == "1") {
        return std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    if let Some((number, (got, want))) = text
        .lines()
        .chain(["(end)"])
        .zip(wanted.lines().chain(["(end)"]))
        .enumerate()
        .find(|(_, (g, w))| g != w)
    {
        panic!(
            "{} differs in line {}:\n  got  {got}\n  want {want}\n\
             TILEWRIGHT_BLESS=1 cargo test --test golden writes it anew; the whole text:\n{text}",
            path.display(),
            number + 1
        );
    }
    assert_eq!(text.lines().count(), wanted.lines().count(), "{}", path.display());
}

fn plan_text(net: &Net) -> String {
    net.plan(&caps()).to_string()
}

/// The text of the kernel that computes `output` under a schedule.
fn kernel_text(net: &Net, output: &str, schedule: &Schedule) -> String {
    let plan = net.plan(&caps());
    let step = plan.steps.iter().find(|step| plan.tensors[step.output].name == output).unwrap();
    let spec = &plan.kernels[step.kernel].spec;
    let target = Target::new(&caps(), Dialect::Browser);
    let text = render(output, spec, schedule, target).unwrap().shader.source;
    format!("// {schedule}\n{text}")
}

#[test]
fn plan_of_attention() {
    compare("attention.plan.txt", &plan_text(&corpus::attention()));
}

#[test]
fn plan_of_feed_forward() {
    compare("feed_forward.plan.txt", &plan_text(&corpus::feed_forward()));
}

#[test]
fn plan_of_residual_block() {
    compare("residual_block.plan.txt", &plan_text(&corpus::residual_block()));
}

#[test]
fn kernel_of_a_map() {
    use support::net::{Net, ints};
    use tilewright::DType;
    let net = Net::new()
        .input("x", DType::F16, "n 6")
        .input("m", DType::Bool, "6 1")
        .node("Transpose", "x", "t", &[ints("perm", &[1, 0])])
        .node("Erf", "t", "e", &[])
        .node("Where", "m e t", "y", &[])
        .output("y", DType::F16);
    let schedule = Schedule::Map(MapSchedule { workgroup: 64, per_invocation: 1, vector: 1 });
    compare("map.wgsl", &kernel_text(&net, "y", &schedule));
}

#[test]
fn kernel_of_rows() {
    let net = corpus::feed_forward();
    let schedule = |lanes, rows| Schedule::Reduce(ReduceSchedule::plain(lanes, rows));
    compare("reduce.wgsl", &kernel_text(&net, "norm", &schedule(64, 1)));
    compare("reduce_serial.wgsl", &kernel_text(&net, "norm", &schedule(1, 64)));
    let kept = ReduceSchedule { vector: 4, kept: 1, subgroups: true, ..ReduceSchedule::plain(16, 4) };
    compare("reduce_subgroup.wgsl", &kernel_text(&net, "norm", &Schedule::Reduce(kept)));
}

#[test]
fn kernel_of_a_contraction() {
    let small = Schedule::Contract(ContractSchedule {
        group_m: 16,
        group_n: 16,
        micro_m: 2,
        micro_n4: 1,
        split_k: 1,
    });
    compare("gemm.wgsl", &kernel_text(&corpus::feed_forward(), "y", &small));
}

#[test]
fn kernel_of_a_convolution() {
    let block = corpus::residual_block();
    let schedule = |subgroup| {
        Schedule::Conv(ConvSchedule { group: 64, micro_o4: 1, micro_w: 2, unroll: true, subgroup })
    };
    compare("conv.wgsl", &kernel_text(&block, "y", &schedule(0)));
    compare("conv_subgroup.wgsl", &kernel_text(&block, "y", &schedule(8)));
}
