# Everything from a fresh machine: `make fit` trains on MovieLens, `make test` runs the tests, `make check` is what CI runs.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

.PHONY: fit test check lint bars bench bench-kernel clean help
help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/ -/'

# Made again when what it is made from changes.
.venv/installed: pyproject.toml serve/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ./serve -e ".[movielens,fast,test]"
	touch $@

.venv/developed: .venv/installed
	$(BIN)/python -m pip install -c constraints.txt -e ./serve -e ".[movielens,fast,dev]"
	touch $@

fit: .venv/installed ## train on real MovieLens ratings (ARGS="--data.path ratings.csv" for your own)
	$(BIN)/python -m cflightning fit $(ARGS)

test: .venv/installed ## the test suite
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/developed ## format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint ## all that CI runs: lint, and the tests with coverage
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

bars: .venv/installed ## measure accuracy, speed and latency against their bars (needs the data sets: CFLIGHTNING_DATA)
	$(BIN)/python tests/benchmarks/bench_bars.py $(ARGS)

bench: .venv/installed ## measure other recommenders beside this one, each in an environment of its own
	$(BIN)/python tests/benchmarks/bench_peers.py $(ARGS)

bench-kernel: .venv/installed ## the fused step's ratings a second for 1 and 2 threads and dims 16 to 256
	$(BIN)/python tests/benchmarks/bench_kernel.py $(ARGS)

clean: ## remove the environments and caches
	rm -rf .venv .venv-peers .mypy_cache .pytest_cache .ruff_cache .coverage*
