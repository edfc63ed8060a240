//! Knobs of `transpose.wgsl`, and which maps it is for.

use serde::{Deserialize, Serialize};

use super::caps::Caps;
use super::fours::{Read, take_where};
use super::peaks::Peaks;
use super::schedule::{Schedule, Sizes, size};
use super::space::{INVOCATIONS, WORKGROUP_MEMORY, fits, powers_of_two};
use crate::expr::{Atom, Expr, Idx, Rewrite};
use crate::tensor::DType;

/// Knobs of `transpose.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TransposeSchedule {
    /// Side of the square that a workgroup makes.
    pub tile: u32,
    /// Its lines that are copied and stored at once; so there are `tile * lines` invocations.
    pub lines: u32,
}

impl std::fmt::Display for TransposeSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tile={} lines={}", self.tile, self.lines)
    }
}

/// How a read of a map lies across the output: `i = x + step * y + ..`, where elements along x are neighbours in the
/// output and elements along y are neighbours in what is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Across {
    /// Elements along x.
    pub width: Idx,
    /// Elements along y.
    pub height: Idx,
    /// The distance in the output of neighbours along y, a multiple of the width.
    pub step: Idx,
}

impl Across {
    /// As the first such read of a map of `len` elements lies, if it has one.
    pub fn of(len: &Idx, value: &Expr) -> Option<Across> {
        let (_, reads) = take_where(value, 0, |_, offset| Across::of_read(len, offset).is_some());
        Across::of_read(len, &reads.first()?.offset)
    }

    /// `value` with the reads that lie so as arguments, and these reads. Those under a condition stay as they are.
    pub fn take(&self, len: &Idx, value: &Expr) -> (Expr, Vec<Read>) {
        take_where(value, 0, |_, offset| Across::of_read(len, offset).as_ref() == Some(self))
    }

    /// Planes of x and y beside each other.
    pub fn beside(&self) -> Idx {
        self.step.div(&self.width)
    }

    /// Part of a map of `len` elements in the loop variables x, y, beside and outer, where
    /// `i = (outer * height + y) * step + beside * width + x`: so nothing is left to divide.
    pub fn by_planes(&self, len: &Idx, part: &Expr) -> Expr {
        let Across { width, height, step } = self;
        let extents = [width, height, &self.beside(), &len.div(&(height * step))];
        let [x, y, beside, outer] = [0, 1, 2, 3].map(|id| Idx::var(id as u32, extents[id]));
        part.rewrite(&mut Place(&(&(&(&outer * height) + &y) * step) + &(&(&beside * width) + &x)))
    }

    /// An offset with a term `(i / step) % height`, which neighbours in memory differ by, and a term of `i % width` with
    /// another factor.
    fn of_read(len: &Idx, offset: &Idx) -> Option<Across> {
        let is_i = |idx: &Idx| matches!(idx.as_atom(), Some(Atom::Var(v)) if v.id == 0);
        let (mut along_y, mut along_x) = (None, None);
        for (atoms, factor) in offset.terms() {
            match atoms.as_slice() {
                [Atom::Div(i, step)] if *factor == 1 && is_i(i) => {
                    along_y = Some((step.clone(), len.div(step)));
                }
                [Atom::Mod(inner, height)] if *factor == 1 && !is_i(inner) => match inner.as_atom() {
                    Some(Atom::Div(i, step)) if is_i(i) => along_y = Some((step.clone(), height.clone())),
                    _ => return None,
                },
                // Neighbours in memory are neighbours in the output.
                [Atom::Mod(..) | Atom::Var(_)] if *factor == 1 => return None,
                atoms => {
                    let width = atoms.iter().find_map(|atom| match atom {
                        Atom::Mod(i, width) if is_i(i) => Some(width.clone()),
                        _ => None,
                    });
                    along_x = along_x.or(width);
                }
            }
        }
        let (width, (step, height)) = (along_x?, along_y?);
        let whole = step.rem(&width).is(0) && len.rem(&(&step * &height)).is(0);
        whole.then_some(Across { width, height, step })
    }

    /// Squares of side `tile` that cover the output.
    pub fn tiles(&self, len: &Idx, tile: u32, sizes: Sizes) -> i64 {
        let [width, height] = [&self.width, &self.height].map(|side| size(side, sizes).max(1));
        let tiles = |side: i64| (side + i64::from(tile) - 1) / i64::from(tile);
        size(len, sizes) / (width * height) * tiles(width) * tiles(height)
    }
}

/// Puts an index in the place of variable 0.
struct Place(Idx);

impl Rewrite for Place {
    fn load(&mut self, source: u32, dtype: DType, at: Vec<Idx>) -> Expr {
        Expr::load(source, dtype, at)
    }

    fn atom(&mut self, atom: &Atom) -> Option<Idx> {
        matches!(atom, Atom::Var(v) if v.id == 0).then(|| self.0.clone())
    }
}

/// Longest side of a tile, and most lines at once, in the space.
const MOST: (u32, u32) = (64, 32);
/// Shortest side of a tile.
const SHORTEST: u32 = 8;
/// Shortest side of a transposition that is tiled by default: one of fewer elements stays within the caches.
const SHORTEST_BY_DEFAULT: i64 = 32;

pub fn points() -> Vec<Schedule> {
    let tiles = powers_of_two(MOST.0).filter(|&tile| tile >= SHORTEST);
    let point = |tile, lines| Schedule::Transpose(TransposeSchedule { tile, lines });
    tiles.flat_map(|tile| powers_of_two(MOST.1).map(move |lines| point(tile, lines))).collect()
}

/// The default on a GPU where both sides have at least 32 elements.
pub fn default(len: &Idx, value: &Expr, sizes: Sizes, caps: &Caps) -> Option<TransposeSchedule> {
    if caps.cpu {
        return None;
    }
    let across = Across::of(len, value)?;
    let long = [&across.width, &across.height].iter().all(|side| size(side, sizes) >= SHORTEST_BY_DEFAULT);
    let chosen = TransposeSchedule { tile: 32, lines: 8 };
    (long && broken_rule(len, value, &chosen, sizes, caps).is_none()).then_some(chosen)
}

pub fn broken_rule(
    len: &Idx,
    value: &Expr,
    s: &TransposeSchedule,
    sizes: Sizes,
    caps: &Caps,
) -> Option<&'static str> {
    let invocations = s.tile * s.lines;
    if s.lines > s.tile || !fits(caps, invocations, 1) {
        return Some(INVOCATIONS);
    } else if !(32..=256).contains(&invocations) {
        return Some("workgroups of fewer than 32 or more than 256 invocations");
    }
    let Some(across) = Across::of(len, value) else {
        return Some("no read that lies across the output");
    };
    let staged: u32 = across.take(len, value).1.iter().map(|read| read.dtype.bits().max(32) as u32 / 8).sum();
    let side = size(&across.width, sizes).min(size(&across.height, sizes));
    if s.tile * (s.tile + 1) * staged > caps.max_workgroup_bytes {
        Some(WORKGROUP_MEMORY)
    } else if i64::from(s.tile) >= 2 * side.max(1) {
        Some("a tile twice as large as the transposition")
    } else {
        None
    }
}

/// Bytes at the copy's speed, of whole tiles, and a barrier per workgroup.
pub fn estimate_ns(
    len: &Idx,
    value: &Expr,
    s: &TransposeSchedule,
    sizes: Sizes,
    caps: &Caps,
    peaks: &Peaks,
) -> f64 {
    let Some(across) = Across::of(len, value) else { return f64::INFINITY };
    let tiles = across.tiles(len, s.tile, sizes) as f64;
    let bytes = tiles * f64::from(s.tile * s.tile) * 8.0;
    let barriers_ns = if caps.cpu { tiles * 400.0 } else { tiles * 2.0 };
    peaks.launch_ns + bytes / peaks.copy_bytes_per_ns + barriers_ns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{flatten, numel, unflatten};

    #[test]
    fn axes_that_change_places_are_found() {
        let p0 = || Idx::sym("p0");
        let n = |value: i64| Idx::from(value);
        // Shape, order of axes, then width, height and step.
        let rows = [
            (vec![n(6), n(8)], vec![1, 0], Some([n(6), n(8), n(6)])),
            (vec![n(6), n(8)], vec![0, 1], None),
            (vec![p0(), n(8)], vec![1, 0], Some([p0(), n(8), p0()])),
            (vec![n(6), p0()], vec![1, 0], Some([n(6), p0(), n(6)])),
            (vec![n(5), n(6), n(8)], vec![2, 1, 0], Some([n(5), n(8), n(30)])),
            // As of keys: the middle axes change places, and the last one with what came to stand before it.
            (vec![n(2), p0(), n(4), n(16)], vec![0, 2, 3, 1], Some([p0(), n(64), p0()])),
            (vec![n(2), p0(), n(4), n(16)], vec![0, 2, 1, 3], None),
        ];
        for (shape, axes, want) in rows {
            let out: Vec<Idx> = axes.iter().map(|&axis: &usize| shape[axis].clone()).collect();
            let len = numel(&shape);
            let place = unflatten(&Idx::var(0, &len), &out);
            let mut from = place.clone();
            axes.iter().zip(&place).for_each(|(&axis, at)| from[axis] = at.clone());
            let load = Expr::load(0, DType::F32, vec![flatten(&from, &shape)]);
            let want = want.map(|[width, height, step]| Across { width, height, step });
            assert_eq!(Across::of(&len, &load), want, "{load}");
        }
    }
}
