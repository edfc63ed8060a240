//! `bindgen INPUT.wasm FOLDER`: writes `core.js`, `core.d.ts` and `core_bg.wasm` into the folder.

use wasm_bindgen_cli_support::Bindgen;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, folder] = arguments.as_slice() else {
        eprintln!("usage: bindgen INPUT.wasm FOLDER");
        std::process::exit(2);
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(input).out_name("core").typescript(true).omit_default_module_path(true);
    bindgen.remove_name_section(true).remove_producers_section(true);
    let written = bindgen.web(true).and_then(|bindgen| bindgen.generate(folder));
    if let Err(error) = written {
        eprintln!("bindgen: {error:#}");
        std::process::exit(1);
    }
}
