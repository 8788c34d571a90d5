# Everything from a fresh machine: `make fit` trains on MovieLens, `make test` runs the tests, `make check` is what CI runs.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: fit test test-portable check lint javascript bars bench bench-accuracy bench-batch bench-bundle bench-defaults bench-fold-in bench-kernel bench-gpu bench-http bench-large bench-lists bench-ranking bench-reload bench-scaling bench-search soak-http kill-fit kill-serving lock sbom clean help
help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/ -/'

# Created again when a file that it depends on changes.
.venv/installed: pyproject.toml serve/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e "./serve[http]" -e ".[movielens,fast,test]"
	touch $@

# Every package with the tested hash, before another requirement can install a different version. torch comes first: PyPI's
# torch for Linux depends on CUDA packages, which requirements.txt does not have.
.venv/verified: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install --require-hashes -r requirements.txt
	touch $@

# With triton, whose interpreter runs the GPU kernel's tests on the CPU. (Not in constraints.txt: torch for CUDA pins its own.)
.venv/developed: .venv/verified .venv/installed
	$(BIN)/python -m pip install -c constraints.txt -e "./serve[http]" -e ".[movielens,fast,gpu,dev]"
	touch $@

fit: .venv/installed ## train on real MovieLens ratings (ARGS="--data.path ratings.csv" for your own)
	$(BIN)/python -m cflightning fit $(ARGS)

PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8
test: .venv/installed ## the tests without the slow ones, in parallel
	$(PYTEST) $(ARGS)

# With the oldest instruction set of torch and numba: promised results must not depend on the machine that runs the tests.
NUMERIC := tests/kernels tests/models tests/objectives tests/sampling tests/solvers tests/test_thread_counts.py tests/tasks/test_two_processes.py
test-portable: .venv/installed ## the numeric tests without advanced vector instructions
	ATEN_CPU_CAPABILITY=default NUMBA_CPU_NAME=generic $(PYTEST) -m "not gpu and not browser" $(NUMERIC) $(ARGS)

lint: .venv/developed ## format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The tests of the JavaScript example are skipped without this: 290 MB, since the package has the libraries of all systems.
serve/examples/javascript/node_modules: serve/examples/javascript/package-lock.json
	cd $(@D) && npm ci --no-audit --no-fund
	touch $@

javascript: serve/examples/javascript/node_modules ## install the packages of the JavaScript example (with npm)

check: lint test-portable $(if $(shell command -v npm),javascript) ## all that CI runs: lint, all tests with coverage, and the numeric ones on plain instructions
	$(PYTEST) -m "not gpu and not browser" --cov --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

bars: .venv/installed ## measure accuracy, speed and latency against their bars (needs the data sets: CFLIGHTNING_DATA)
	$(BIN)/python tests/benchmarks/bench_bars.py $(ARGS)

bench-accuracy: .venv/installed ## test RMSE of every config, and of the defaults against tuned settings
	$(BIN)/python -m pip install -q -c constraints.txt "optuna>=4"
	$(BIN)/python tests/benchmarks/bench_accuracy.py $(ARGS)

bench: .venv/installed ## other libraries on the same splits, each in an environment of its own
	$(BIN)/python tests/benchmarks/bench_peers.py $(ARGS)

bench-batch: .venv/installed ## recommendations of all users, beside a matrix product and top-k of other libraries
	$(BIN)/python tests/benchmarks/bench_batch.py $(ARGS)

bench-bundle: .venv/installed ## size and load time of bundles in each precision (ARGS="RUN ...")
	$(BIN)/python tests/benchmarks/bench_bundle.py --write $(ARGS)

kill-fit: .venv/installed ## kill fits, cross-validations and searches at random moments
	$(BIN)/python tests/benchmarks/kill_fit.py $(ARGS)

kill-serving: .venv/installed ## kill exports and batches at random moments
	$(BIN)/python tests/benchmarks/kill_serving.py $(ARGS)

bench-fold-in: .venv/installed ## new users without retraining: errors and latency (needs MovieLens 1M: CFLIGHTNING_DATA)
	$(BIN)/python tests/benchmarks/bench_fold_in.py $(ARGS)

bench-kernel: .venv/installed ## ratings per second of the fused step, 1 and 2 threads, dims 16 to 256
	$(BIN)/python tests/benchmarks/bench_kernel.py $(ARGS)

bench-defaults: .venv/installed ## the defaults on synthetic tables, beside biases alone and fixed settings
	$(BIN)/python tests/benchmarks/bench_defaults.py $(ARGS)

bench-search: .venv/installed ## recommendations of one user by size of the catalogue, beside faiss and implicit
	$(BIN)/python tests/benchmarks/bench_search.py $(ARGS)

bench-scaling: .venv/installed ## time per rating from 1 to 100 million ratings, as a table and a plot
	$(BIN)/python -m pip install -q -c constraints.txt "matplotlib>=3.8"
	$(BIN)/python tests/benchmarks/bench_scaling.py $(ARGS)

bench-large: .venv/installed ## time and memory of an epoch of 100 million ratings
	$(BIN)/python tests/benchmarks/bench_large.py $(ARGS)

bench-lists: .venv/installed ## ranking metrics on real data
	$(BIN)/python tests/benchmarks/bench_lists.py $(ARGS)

bench-ranking: .venv/installed ## recommendations of all users during evaluation, beside their matrix product (needs Gowalla: CFLIGHTNING_DATA)
	$(BIN)/python tests/benchmarks/bench_ranking.py $(ARGS)

bench-http: .venv/installed ## requests per second of the HTTP server, and reloads under load (needs wrk)
	$(BIN)/python tests/benchmarks/bench_http.py --write $(ARGS)

soak-http: .venv/installed ## ten minutes of regular and malicious load on the HTTP server (ARGS="--minutes 2")
	$(BIN)/python tests/benchmarks/soak_http.py $(ARGS)

bench-reload: .venv/installed ## latency while the server loads a bundle of 200,000 items
	$(BIN)/python tests/benchmarks/bench_reload.py --write $(ARGS)

bench-gpu: .venv/installed ## the fused step on a CUDA GPU, alone and through the Trainer
	$(BIN)/python tests/benchmarks/bench_gpu.py $(ARGS)

# Tools outside of the project's environment.
.venv-tools/installed: Makefile
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install "uv>=0.9" "cyclonedx-bom>=7"
	touch $@

# SHA-256 of torch 2.13.0's builds for the CPU, which PyPI does not have: Linux x86_64, Linux arm64 and Windows, Python 3.11 to 3.14.
TORCH_CPU := \
	6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b 4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2 \
	3fbf9c9d1f3c10c2d59d04aca426dee9ccc6ceb32d255c61e93acc3b4f75fae6 d20fa53ee744502fa4c69818a720b05ca0d37abd055d4f6e66cae155114bc691 \
	84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7 6f307c2c32d764ffc6ff6893b801fad6d4752f3e67966cb8abf1843427c02604 \
	0b8f7d0423027ae8b90c7977c627f3379f325363a08224dffad9b4b2d684a83d ca021f9eb2f8345c83fa03e3a04587308afb8df71bd472670b3ece00df58621c \
	10717d8b3b67c45a4788bf7ffc0bab1ea1e5ebbedd24466be6100102d141fac1 a8b450c1e58e5800e5b4691dac412f8d2d65a1dc3298166f91596603a3531e6f \
	a17ff48608634db245e17e8bb00a9558554a49aeb1e4f5fe6cd039af2a10515b e2e5134decf00e218da62318f3dc5df156231d367871918e91eba95ab0ad43ab
COMPILE := .venv-tools/bin/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --no-annotate

# (coverage: pytest-cov requires an extra, and pip ignores a pin without it.)
lock: .venv-tools/installed ## write both requirements.txt, with the hashes of every file of the versions in constraints.txt
	$(COMPILE) --no-deps constraints.txt --output-file requirements.txt
	sed -i -e 's/^coverage==/coverage[toml]==/' -e 's/^torch==.*/&$(foreach hash,$(TORCH_CPU),\n    --hash=sha256:$(hash) \\)/' requirements.txt
	$(COMPILE) --constraints constraints.txt --extra http --extra signed serve/pyproject.toml --output-file serve/requirements.txt
	sed -i -e '1i # Written by make lock: exact versions and the hashes of their files, for pip install --require-hashes.' -e 's/ *$$//' \
		requirements.txt serve/requirements.txt

sbom: .venv-tools/installed .venv/installed ## write sbom.json, a CycloneDX list of the installed packages with licences
	.venv-tools/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-format JSON --output-file sbom.json

clean: ## remove the environments and caches
	rm -rf .venv .venv-peers .venv-tools .mypy_cache .pytest_cache .ruff_cache .coverage*
