// result = data: how many bytes a device moves in a second. Neighbouring invocations take neighbouring items.

//#knobs
alias Item = vec4<u32>;
//#end

@group(0) @binding(0) var<storage, read> data: array<Item>;
@group(0) @binding(1) var<storage, read_write> result: array<Item>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < arrayLength(&result); i += groups.x * 64u) {
        result[i] = data[i];
    }
}
