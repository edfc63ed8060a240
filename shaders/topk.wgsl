// out[row, j] = position(row, r) for the r that stands at place j of the row in order, j < k
//
// r comes before another position if its key does, or if the keys are equal and it is the smaller. The k-selection of
// Johnson, Douze and Jegou, "Billion-scale similarity search with GPUs" (2017), with one queue for all lanes of a row in
// place of one for each:
//
//     best    KEEP entries in order: the first of those seen so far
//     queue   QUEUE entries in no order: candidates, which come before the last of the best
//
// LANES invocations read half a queue's length of the row at a time, and put into the queue what is a candidate: soon that
// is little. When another step might not fit, a bitonic network (Batcher 1968) sorts the queue, and its last stage merges
// the best of both. ROWS rows stand side by side in a workgroup, and merge together.

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<i32>;
//#end

//#knobs
const LANES: u32 = 64u;
const ROWS: u32 = 1u;
const KEEP: u32 = 64u;
const QUEUE: u32 = 128u;
//#end

//#slot
alias Key = f32;
fn rows() -> i32 { return 1; }
fn extent() -> i32 { return 4; }
fn k() -> i32 { return i32(arrayLength(&result)); }
fn key(row: i32, r: i32) -> Key { return t0[r]; }
fn last() -> Key { return 3e38; }
fn before(a: Key, b: Key) -> bool { return a < b; }
fn store(at: i32, row: i32, r: i32) { result[at] = r; }
//#end

const STEP: u32 = QUEUE / 2u;
const EACH: u32 = KEEP + QUEUE;

// Of each row, the best and the queue behind them.
var<workgroup> keys: array<Key, ROWS * EACH>;
var<workgroup> places: array<i32, ROWS * EACH>;
var<workgroup> queued: array<atomic<u32>, ROWS>;
var<workgroup> longest: u32;

fn comes_first(key_a: Key, a: i32, key_b: Key, b: i32) -> bool {
    if (before(key_a, key_b)) {
        return true;
    }
    return a < b && !before(key_b, key_a);
}

fn clear(entry: u32) {
    keys[entry] = last();
    places[entry] = 0x7fffffff;
}

// Put two entries in order.
fn arrange(a: u32, b: u32) {
    let key_a = keys[a];
    let key_b = keys[b];
    let place_a = places[a];
    let place_b = places[b];
    if (comes_first(key_b, place_b, key_a, place_a)) {
        keys[a] = key_b;
        keys[b] = key_a;
        places[a] = place_b;
        places[b] = place_a;
    }
}

// The lower of two entries that are a stride apart, in comparison number i of a stage.
fn lower(i: u32, stride: u32) -> u32 {
    return i / stride * stride * 2u + i % stride;
}

@compute @workgroup_size(LANES, ROWS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let wanted = i32((group.y * groups.x + group.x) * ROWS + local.y);
    // Rows beyond the end repeat the last one and store nothing: barriers need everybody.
    let row = min(wanted, rows() - 1);
    let lane = local.x;
    let best = local.y * EACH;
    let queue = best + KEEP;
    for (var i = lane; i < KEEP; i += LANES) {
        clear(best + i);
    }
    if (lane == 0u) {
        atomicStore(&queued[local.y], 0u);
    }
    workgroupBarrier();
    for (var first = 0; first < extent(); first += i32(STEP)) {
        let last_key = keys[best + KEEP - 1u];
        let last_place = places[best + KEEP - 1u];
        for (var i = lane; i < STEP; i += LANES) {
            let r = first + i32(i);
            if (r < extent()) {
                let found = key(row, r);
                if (comes_first(found, r, last_key, last_place)) {
                    let entry = queue + atomicAdd(&queued[local.y], 1u);
                    keys[entry] = found;
                    places[entry] = r;
                }
            }
        }
        workgroupBarrier();
        if (lane == 0u && local.y == 0u) {
            longest = 0u;
            for (var i = 0u; i < ROWS; i++) {
                longest = max(longest, atomicLoad(&queued[i]));
            }
        }
        let is_full = workgroupUniformLoad(&longest) > QUEUE - STEP;
        let is_last = first >= extent() - i32(STEP);
        if (is_full | is_last) {
            for (var i = atomicLoad(&queued[local.y]) + lane; i < QUEUE; i += LANES) {
                clear(queue + i);
            }
            workgroupBarrier();
            for (var size = 2u; size <= QUEUE; size *= 2u) {
                // Both halves of a block are in order: the first against the last, the second against the last but one, ..
                for (var i = lane; i < QUEUE / 2u; i += LANES) {
                    let block = queue + i / (size / 2u) * size;
                    let within = i % (size / 2u);
                    arrange(block + within, block + size - 1u - within);
                }
                workgroupBarrier();
                for (var stride = size / 4u; stride > 0u; stride /= 2u) {
                    for (var i = lane; i < QUEUE / 2u; i += LANES) {
                        let entry = queue + lower(i, stride);
                        arrange(entry, entry + stride);
                    }
                    workgroupBarrier();
                }
            }
            for (var i = lane; i < min(KEEP, QUEUE); i += LANES) {
                arrange(queue - 1u - i, queue + i);
            }
            if (lane == 0u) {
                atomicStore(&queued[local.y], 0u);
            }
            workgroupBarrier();
            for (var stride = KEEP / 2u; stride > 0u; stride /= 2u) {
                for (var i = lane; i < KEEP / 2u; i += LANES) {
                    let entry = best + lower(i, stride);
                    arrange(entry, entry + stride);
                }
                workgroupBarrier();
            }
        }
    }
    if (wanted == row) {
        for (var j = i32(lane); j < k(); j += i32(LANES)) {
            store(row * k() + j, row, places[best + u32(j)]);
        }
    }
}
