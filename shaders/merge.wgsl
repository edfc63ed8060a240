// out[row, j] = position(row, r) for the r that stands at place j of the row in order, j < k, where the positions below
// split and those from split on are in order already
//
// The merge path of Odeh, Green, Mwassi, Shmueli and Birk, "Merge Path - Parallel Merging Made Simple" (2012): an
// invocation finds by bisection how many of the first `first` come from the left part, and goes on from there for EACH
// places. Of equal keys, those of the left part come first.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<i32>;
//#end

//#knobs
const WORKGROUP: u32 = 64u;
const EACH: i32 = 8;
//#end

//#slot
alias Key = f32;
fn rows() -> i32 { return 1; }
fn extent() -> i32 { return i32(arrayLength(&t0)); }
fn split() -> i32 { return 1; }
fn k() -> i32 { return i32(arrayLength(&result)); }
fn key(row: i32, r: i32) -> Key { return t0[r]; }
fn before(a: Key, b: Key) -> bool { return a < b; }
fn store(at: i32, row: i32, r: i32) { result[at] = r; }
//#end

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let across = (k() + EACH - 1) / EACH;
    let number = i32((group.y * groups.x + group.x) * WORKGROUP + lane);
    let row = number / across;
    let first = number % across * EACH;
    if (row >= rows()) {
        return;
    }
    var low = max(first - (extent() - split()), 0);
    var high = min(first, split());
    while (low < high) {
        let middle = (low + high) / 2;
        if (before(key(row, split() + first - 1 - middle), key(row, middle))) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    var left = low;
    var right = split() + first - low;
    for (var j = first; j < min(first + EACH, k()); j++) {
        var is_left = right >= extent();
        if (!is_left && left < split()) {
            is_left = !before(key(row, right), key(row, left));
        }
        store(row * k() + j, row, select(right, left, is_left));
        left += select(0, 1, is_left);
        right += select(1, 0, is_left);
    }
}
