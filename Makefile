# The commands of this project. `make test` is what CI runs.

PYTHON := target/venv/bin/python
CARGO_FLAGS := $(if $(CI),--locked)
# Kernels as browsers get them, for the browser's own compiler.
WGSL := $(CURDIR)/target/web/wgsl

# The demo's question goes through the environment, so that it may contain any character.
export QUERY

.PHONY: help demo setup test-data test lint test-models test-coop test-differential bless-onnx bench bench-onnxruntime bench-web web wgsl test-web test-dropin test-bundlers test-firefox serve

help:
	@echo 'make demo [QUERY="..."]   build the sentence encoder, search 200 sentences by meaning'
	@echo 'make test                 everything that CI runs'
	@echo 'make lint                 of that, formatting, lints, wasm32 and documentation'
	@echo 'make web                  the npm package, in web/dist'
	@echo 'make test-web             of the tests, those in a browser; ONLY=TEXT picks some'
	@echo 'make test-dropin          @huggingface/transformers on the package'
	@echo 'make test-bundlers        pages built with Vite and webpack; Node with Dawn'
	@echo 'make test-firefox         kernels and networks in Firefox'
	@echo 'make serve                the demo page, on http://localhost:8080'
	@echo 'make test-models          all eight networks and their quantized variants, all cases, in release mode'
	@echo 'make test-coop            matrix products by cooperative matrices, on a Mesa 26 unpacked into target/mesa'
	@echo 'make test-differential    random nodes against ONNX Runtime for ten minutes'
	@echo 'make bless-onnx           rewrite the list of ONNX backend cases that pass'
	@echo 'make test-data            what the tests read from target/test-data'
	@echo 'make bench                the benchmarks'
	@echo 'make bench-onnxruntime    the eight networks against ONNX Runtime WebGPU; RESULT=FILE, CASES="NAME/CASE ..."'
	@echo 'make bench-web            the npm package against onnxruntime-web and TensorFlow.js, in Chromium'

demo:
	@tools/setup.sh demo
	@$(PYTHON) tools/minilm.py
	cargo run $(CARGO_FLAGS) --release --example semantic_search -- "$$QUERY"

setup:
	@tools/setup.sh test

test-data: setup
	@$(PYTHON) tools/fill_model.py
	@$(PYTHON) tools/quantize_models.py
	@$(PYTHON) tools/onnx_backend.py
	@$(PYTHON) tools/decode_cache.py
	@$(PYTHON) tools/minilm.py
	@$(PYTHON) tools/check_minilm.py

lint: setup
	cargo fmt --check
	cargo clippy $(CARGO_FLAGS) --all-targets --features cli -- -D warnings
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	cargo check $(CARGO_FLAGS) --lib --target wasm32-unknown-unknown
	RUSTDOCFLAGS='-D warnings' cargo doc $(CARGO_FLAGS) --no-deps --features cli

# One build of the tests: all targets and the doc tests, with the command line.
test: lint test-data
	@rm -rf $(WGSL)
	TILEWRIGHT_WGSL=$(WGSL) cargo test $(CARGO_FLAGS) --features cli
	$(MAKE) web
	node web/tests/run.mjs

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --silent
	@touch $@

web: setup web/node_modules/.package-lock.json
	node web/build.mjs

wgsl:
	@rm -rf $(WGSL)
	TILEWRIGHT_WGSL=$(WGSL) cargo test $(CARGO_FLAGS) --features cli --test wgsl_valid

test-web: web wgsl test-data
	node web/tests/run.mjs

serve: web
	@$(PYTHON) tools/minilm.py
	node web/serve.mjs

test-models: test-data
	@$(PYTHON) tools/fill_model.py --all
	@$(PYTHON) tools/quantize_models.py --all
	TILEWRIGHT_MODELS=all cargo test $(CARGO_FLAGS) --release --test models --test quantized_models

test-coop: web test-data
	@tools/mesa26.sh
	TILEWRIGHT_COOPERATIVE=1 CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$(CURDIR)/target/mesa/run \
		cargo test $(CARGO_FLAGS) --features cli --test contractions
	cd web/tests/bundlers && npm ci --silent --ignore-scripts
	target/mesa/run "$$(command -v node)" web/tests/bundlers/node.mjs matrices

# SECONDS,SEED: another hour finds what twenty seconds do not.
test-differential: setup
	TILEWRIGHT_DIFFERENTIAL=$${TILEWRIGHT_DIFFERENTIAL:-600,1000} cargo test $(CARGO_FLAGS) --features cli --test differential

bless-onnx: test-data
	TILEWRIGHT_BLESS=1 cargo test $(CARGO_FLAGS) --features cli --test onnx_backend

bench:
	cargo bench $(CARGO_FLAGS)

# All cases of the eight networks against ONNX Runtime's WebGPU provider, about an hour: RESULT=FILE takes what it finds.
bench-onnxruntime: test-data target/bench-venv/stamp
	@$(PYTHON) tools/fill_model.py --all
	cargo build $(CARGO_FLAGS) --release --features cli
	target/bench-venv/bin/python benches/against_onnxruntime.py --result $(RESULT) $(CASES)

target/bench-venv/stamp: benches/requirements.txt
	python3 -m venv target/bench-venv
	target/bench-venv/bin/pip install --quiet -r benches/requirements.txt
	@touch $@

# Against the peers from npm, in one Chromium; ten minutes on SwiftShader.
bench-web: web
	@$(PYTHON) tools/fill_model.py minilm --only b1_s128
	@$(PYTHON) tools/fill_model.py resnet18 --only b1
	cd web/bench && npm ci --silent --ignore-scripts
	@rm -rf target/web/bench
	for part in minilm matmul resnet18 navigation; do node web/bench/run.mjs $$part 5 || exit 1; done
	node web/bench/report.mjs

# @huggingface/transformers on this package and on onnxruntime-web, in Vite builds; its packages are large.
test-dropin: web test-data
	cd web/tests/dropin && npm ci --silent --ignore-scripts
	node web/tests/dropin/run.mjs

# Pages built with Vite and webpack, and programs under Node with Dawn, which also compiles every kernel.
test-bundlers: web wgsl test-data
	cd web/tests/bundlers && npm ci --silent --ignore-scripts
	node web/tests/bundlers/run.mjs

# What Debian's Firefox makes of the package; it says where it stops.
test-firefox: web wgsl test-data
	node web/tests/firefox/run.mjs
