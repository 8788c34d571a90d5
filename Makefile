# Everything from a fresh machine: `make fit` trains on MovieLens, `make test` runs the tests, `make check` is what CI runs.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: fit test check lint javascript bars bench bench-accuracy bench-batch bench-bundle bench-defaults bench-fold-in bench-kernel bench-gpu bench-http bench-large bench-lists bench-ranking bench-scaling bench-search clean help
help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/ -/'

# Made again when what it is made from changes.
.venv/installed: pyproject.toml serve/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e "./serve[http]" -e ".[movielens,fast,test]"
	touch $@

# With triton, whose interpreter runs the GPU kernel's tests on the CPU. (Not in constraints.txt: torch for CUDA pins its own.)
.venv/developed: .venv/installed
	$(BIN)/python -m pip install -c constraints.txt -e "./serve[http]" -e ".[movielens,fast,gpu,dev]"
	touch $@

fit: .venv/installed ## train on real MovieLens ratings (ARGS="--data.path ratings.csv" for your own)
	$(BIN)/python -m cflightning fit $(ARGS)

test: .venv/installed ## the test suite
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/developed ## format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The tests of the JavaScript example are skipped without this: 290 MB, since the package brings every system's library.
serve/examples/javascript/node_modules: serve/examples/javascript/package-lock.json
	cd $(@D) && npm ci --no-audit --no-fund
	touch $@

javascript: serve/examples/javascript/node_modules ## what the JavaScript example needs (with npm)

check: lint $(if $(shell command -v npm),javascript) ## all that CI runs: lint, and the tests with coverage
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --cov --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

bars: .venv/installed ## measure accuracy, speed and latency against their bars (needs the data sets: CFLIGHTNING_DATA)
	$(BIN)/python tests/benchmarks/bench_bars.py $(ARGS)

bench-accuracy: .venv/installed ## test errors of every config and of the defaults against tuned settings
	$(BIN)/python -m pip install -q -c constraints.txt "optuna>=4"
	$(BIN)/python tests/benchmarks/bench_accuracy.py $(ARGS)

bench: .venv/installed ## measure other recommenders beside this one, each in an environment of its own
	$(BIN)/python tests/benchmarks/bench_peers.py $(ARGS)

bench-batch: .venv/installed ## the lists of all users of a bundle beside a matrix product and the best top-k of others
	$(BIN)/python tests/benchmarks/bench_batch.py $(ARGS)

bench-bundle: .venv/installed ## the bytes of bundles in each precision, and what loading costs (ARGS="RUN ...")
	$(BIN)/python tests/benchmarks/bench_bundle.py --write $(ARGS)

bench-fold-in: .venv/installed ## new users without retraining: errors and latency (needs MovieLens 1M: CFLIGHTNING_DATA)
	$(BIN)/python tests/benchmarks/bench_fold_in.py $(ARGS)

bench-kernel: .venv/installed ## the fused step's ratings a second for 1 and 2 threads and dims 16 to 256
	$(BIN)/python tests/benchmarks/bench_kernel.py $(ARGS)

bench-defaults: .venv/installed ## the defaults on made-up tables of many kinds, beside biases alone and fixed settings
	$(BIN)/python tests/benchmarks/bench_defaults.py $(ARGS)

bench-search: .venv/installed ## the best items of one user from catalogues of any size, beside faiss and implicit
	$(BIN)/python tests/benchmarks/bench_search.py $(ARGS)

bench-scaling: .venv/installed ## what a rating costs from 1 to 100 million of them, as a table and a picture
	$(BIN)/python -m pip install -q -c constraints.txt "matplotlib>=3.8"
	$(BIN)/python tests/benchmarks/bench_scaling.py $(ARGS)

bench-large: .venv/installed ## an epoch of 100 million ratings, and its memory
	$(BIN)/python tests/benchmarks/bench_large.py $(ARGS)

bench-lists: .venv/installed ## figures of lists on real data, one command each
	$(BIN)/python tests/benchmarks/bench_lists.py $(ARGS)

bench-ranking: .venv/installed ## the best items of all users beside their matrix product alone (needs Gowalla: CFLIGHTNING_DATA)
	$(BIN)/python tests/benchmarks/bench_ranking.py $(ARGS)

bench-http: .venv/installed ## requests a second of the HTTP server, and reloads under load (needs wrk)
	$(BIN)/python tests/benchmarks/bench_http.py --write $(ARGS)

bench-gpu: .venv/installed ## the fused step on a CUDA GPU, alone and through the Trainer
	$(BIN)/python tests/benchmarks/bench_gpu.py $(ARGS)

clean: ## remove the environments and caches
	rm -rf .venv .venv-peers .mypy_cache .pytest_cache .ruff_cache .coverage*
