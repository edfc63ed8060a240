// out[i] = value(i), i = 0 .. len-1, where some of what value reads lies along another axis than the output
//
// i = (outer * height + y) * step + beside * width + x: neighbours of the output follow each other along x, neighbours of
// what is read along y, and planes of x and y lie beside each other, `step / width` of them. A workgroup makes
// TILE x TILE elements, LINES lines at a time: it copies what they read to workgroup memory with neighbouring
// invocations along y, then computes and stores with neighbouring invocations along x.
//
//     copy     y ->                   store     x ->           read down the columns of workgroup memory, whose
//              0 1 2 3                          0 4 8 ..       rows are one element longer than the tile, so that
//            x 4 5 6 7                        y 1 5 9 ..       a column lies in different banks
//              8 ..                             2 ..

//#bindings
@group(0) @binding(0) var<storage, read> t0: array<f32>;
@group(0) @binding(1) var<storage, read_write> result: array<f32>;
//#end

//#knobs
const TILE: u32 = 32u;
const LINES: u32 = 8u;
//#end

//#each s STAGED
var<workgroup> tile_s0: array<Staged_s0, TILE * (TILE + 1u)>;
var<private> here_s0: Staged_s0;
//#end

//#slot
alias Staged_s0 = f32;
fn len() -> i32 { return i32(arrayLength(&result)); }
// Elements along x, and along y; the distance in the output of two neighbours along y, a multiple of width; planes.
fn width() -> i32 { return 4; }
fn height() -> i32 { return 4; }
fn step() -> i32 { return 4; }
fn planes() -> i32 { return 1; }
fn staged_s0(x: i32, y: i32, beside: i32, outer: i32) -> Staged_s0 { return t0[x * 4 + y]; }
fn store(i: i32, x: i32, y: i32, beside: i32, outer: i32) { result[i] = here_s0; }
//#end

@compute @workgroup_size(TILE * LINES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let size = i32(TILE);
    let across = (width() + size - 1) / size;
    let tiles = across * ((height() + size - 1) / size);
    let number = i32(group.y * groups.x + group.x);
    let first_x = number % tiles % across * size;
    let first_y = number % tiles / across * size;
    let outer = number / tiles / planes();
    let beside = number / tiles % planes();
    let first = outer * height() * step() + beside * width();
    // Workgroups beyond the end do nothing: barriers need everybody.
    let inside = first < len();
    let place = i32(index % TILE);
    for (var line = i32(index / TILE); line < size; line += i32(LINES)) {
        let x = first_x + line;
        let y = first_y + place;
        if (inside && x < width() && y < height()) {
            let to = line * (size + 1) + place;
            //#each s STAGED
            tile_s0[to] = staged_s0(x, y, beside, outer);
            //#end
        }
    }
    workgroupBarrier();
    for (var line = i32(index / TILE); line < size; line += i32(LINES)) {
        let x = first_x + place;
        let y = first_y + line;
        if (inside && x < width() && y < height()) {
            let from_column = place * (size + 1) + line;
            //#each s STAGED
            here_s0 = tile_s0[from_column];
            //#end
            store(first + y * step() + x, x, y, beside, outer);
        }
    }
}
