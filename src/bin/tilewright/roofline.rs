//! The roofline plot of a report: each kernel at its arithmetic per byte and the speed that it reached, under the roof
//! of what the device can do.

use std::fmt::Write as _;

use tilewright::kernel::{Limit, Peaks, Work};

/// What a kernel's speed is bound by, in a word.
pub fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Arithmetic => "arithmetic",
        Limit::Bytes => "bytes",
    }
}

/// A share for people, as `62%`.
pub fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// One kernel on the plot.
pub struct Point {
    /// Its number on the page.
    pub number: usize,
    /// Its name.
    pub label: String,
    /// What it must do.
    pub work: Work,
    /// By default and tuned.
    pub times_ns: [u64; 2],
}

/// The drawing's size, and the margins of its axes: left, right, top, bottom.
const SIZE: [f64; 2] = [640.0, 400.0];
const MARGINS: [f64; 4] = [72.0, 16.0, 24.0, 48.0];
/// Arithmetic per byte of what does none: such a kernel stands at the left edge.
const LEAST: f64 = 1.0 / 16.0;

struct Axes {
    /// Smallest and largest power of two, of operations per byte.
    x: [f64; 2],
    /// Smallest and largest power of ten, of GFLOP/s.
    y: [f64; 2],
}

impl Axes {
    fn place(&self, intensity: f64, gflops: f64) -> [f64; 2] {
        let [left, right, top, bottom] = MARGINS;
        let part = |value: f64, [from, to]: [f64; 2]| ((value - from) / (to - from)).clamp(0.0, 1.0);
        [
            left + part(intensity.log2(), self.x) * (SIZE[0] - left - right),
            SIZE[1] - bottom - part(gflops.log10(), self.y) * (SIZE[1] - top - bottom),
        ]
    }
}

fn intensity(work: &Work) -> f64 {
    (work.flops / work.bytes.max(1.0)).max(LEAST)
}

/// GFLOP/s that the device could reach at so many operations per byte.
fn roof(peaks: &Peaks, intensity: f64) -> f64 {
    (intensity * peaks.copy_bytes_per_ns).min(peaks.f32_flops_per_ns)
}

/// The plot as SVG.
pub fn plot(peaks: &Peaks, points: &[Point]) -> String {
    // A kernel stands as far below the roof as its time is above the roofline's.
    let height = |point: &Point, ns: u64| roof(peaks, intensity(&point.work)) * peaks.share(&point.work, ns);
    let ridge = peaks.f32_flops_per_ns / peaks.copy_bytes_per_ns;
    let xs = points.iter().map(|point| intensity(&point.work)).chain([ridge / 8.0, ridge * 8.0]);
    let ys = points.iter().flat_map(|point| point.times_ns.map(|ns| height(point, ns)));
    let ys = ys.chain([peaks.f32_flops_per_ns, peaks.f32_flops_per_ns / 100.0]);
    let range = |values: Vec<f64>, log: fn(f64) -> f64| {
        let logs = values.into_iter().filter(|value| *value > 0.0).map(log);
        let [low, high] = logs.fold([f64::MAX, f64::MIN], |[low, high], v| [low.min(v), high.max(v)]);
        [low.floor(), (high + 0.1).ceil()]
    };
    let axes = Axes { x: range(xs.collect(), f64::log2), y: range(ys.collect(), f64::log10) };
    let mut svg = format!(
        "<svg class=\"roofline\" role=\"img\" aria-label=\"roofline plot\" viewBox=\"0 0 {} {}\">\n",
        SIZE[0], SIZE[1]
    );
    grid(&mut svg, &axes);
    let line = |svg: &mut String, from: [f64; 2], to: [f64; 2], class: &str| {
        let ([x1, y1], [x2, y2]) = (from, to);
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    };
    let (least, most) = (axes.x[0].exp2(), axes.x[1].exp2());
    // The slope may begin below the drawing.
    let start = least.max(10f64.powf(axes.y[0]) / peaks.copy_bytes_per_ns);
    let top = axes.place(ridge, peaks.f32_flops_per_ns);
    line(&mut svg, axes.place(start, roof(peaks, start)), top, "roof");
    line(&mut svg, top, axes.place(most, peaks.f32_flops_per_ns), "roof");
    let [x, y] = axes.place(most, peaks.f32_flops_per_ns);
    let _ = writeln!(
        svg,
        "<text class=\"end\" x=\"{x:.1}\" y=\"{:.1}\">{:.0} GFLOP/s, {:.1} GB/s</text>",
        y - 6.0,
        peaks.f32_flops_per_ns,
        peaks.copy_bytes_per_ns
    );
    // The first kernels take most of a run: they are drawn last, on top.
    for point in points.iter().rev() {
        let at = |ns| axes.place(intensity(&point.work), height(point, ns));
        let [default, best] = point.times_ns.map(at);
        line(&mut svg, default, best, "gain");
        let _ = writeln!(
            svg,
            "<circle class=\"default\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>",
            default[0], default[1]
        );
        let share = percent(peaks.share(&point.work, point.times_ns[1]));
        let _ = writeln!(
            svg,
            "<g><title>{}: {share} of the roofline</title><circle class=\"best\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"9\"/>\
             <text class=\"number\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
            crate::html::escaped(&point.label),
            best[0],
            best[1],
            best[0],
            best[1] + 3.5,
            point.number
        );
    }
    svg + "</svg>\n"
}

/// Lines and figures of the axes.
fn grid(svg: &mut String, axes: &Axes) {
    let [left, right, top, bottom] = MARGINS;
    let (floor, end) = (SIZE[1] - bottom, SIZE[0] - right);
    let steps = (axes.x[1] - axes.x[0]) as i32;
    for step in (0..=steps).step_by(if steps > 10 { 2 } else { 1 }) {
        let power = axes.x[0] + f64::from(step);
        let [x, _] = axes.place(power.exp2(), 1.0);
        let text = if power < 0.0 { format!("1/{}", (-power).exp2()) } else { format!("{}", power.exp2()) };
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{floor}\"/>\
             <text class=\"middle\" x=\"{x:.1}\" y=\"{}\">{text}</text>",
            floor + 16.0
        );
    }
    for power in axes.y[0] as i32..=axes.y[1] as i32 {
        let [_, y] = axes.place(1.0, 10f64.powi(power));
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\"/>\
             <text class=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
            left - 6.0,
            y + 4.0,
            10f64.powi(power)
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"middle\" x=\"{}\" y=\"{}\">operations per byte</text>\
         <text class=\"middle\" transform=\"translate(14 {}) rotate(-90)\">GFLOP/s</text>",
        (left + end) / 2.0,
        SIZE[1] - 8.0,
        (top + floor) / 2.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_stand_below_the_roof_by_their_share() {
        let peaks = Peaks {
            copy_bytes_per_ns: 10.0,
            f32_flops_per_ns: 100.0,
            f16_flops_per_ns: None,
            launch_ns: 1.0,
        };
        let axes = Axes { x: [0.0, 8.0], y: [0.0, 3.0] };
        // 16 operations per byte, beyond the ridge at 10: half of 100 GFLOP/s.
        let work = Work { flops: 1600.0, bytes: 100.0, f16: false };
        assert_eq!(roof(&peaks, intensity(&work)) * peaks.share(&work, 32), 50.0);
        let [x, y] = axes.place(16.0, 1000.0);
        assert_eq!((x, y), (72.0 + 0.5 * (640.0 - 88.0), 24.0));
        let idle = Work { flops: 0.0, ..work };
        let point = |number, work| Point { number, label: "a<b".into(), work, times_ns: [64, 32] };
        let svg = plot(&peaks, &[point(1, work), point(2, idle)]);
        assert_eq!(svg.matches("<circle class=\"best\"").count(), 2);
        assert!(svg.contains("a&lt;b: 50% of the roofline") && !svg.contains("NaN"), "{svg}");
    }
}
