# Every target does its own set-up: `make demo` and `make test` work in a fresh clone.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MM_ROOT ?= .mm
RECIPE ?= configs/recipes/stamps_tiny_cpu.yaml
export MM_ROOT
export DO_NOT_TRACK = 1
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true
export RAY_USAGE_STATS_ENABLED = 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install demo test faults bench bench-operate bench-data bench-train lint format docs lock clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## Make .venv with exactly the locked packages

$(VENV)/installed: requirements.lock pyproject.toml infra/install.sh
	@infra/install.sh "$(PYTHON)" "$(VENV)"
	@touch $@

demo: install  ## Real corpus to registered model; again: does nothing and says why
	@BIN=$(BIN) RECIPE=$(RECIPE) infra/demo.sh

test: install  ## Run every test but the long ones of make faults
	@infra/chromium.sh
	@$(BIN)/python -m pytest -n 2 --dist loadgroup

faults: install  ## Kill, freeze and cancel runs at random, many times; MM_FAULT_TRIALS=20
	@MM_FAULT_TRIALS=$(or $(MM_FAULT_TRIALS),20) $(BIN)/python -m pytest tests/faults \
		tests/core/test_lease.py tests/end_to_end/test_operate.py -m "slow or not slow" --timeout 7200

bench: install  ## Measure what docs/benchmarks.md says; BENCH="--corpus PATH --seeds 3" trains too
	@$(BIN)/python tests/benchmarks/bench_spine.py $(BENCH)

bench-operate: install  ## Measure orchestration, new data, cancel and the dashboard
	@$(BIN)/python tests/benchmarks/bench_operate.py $(BENCH)

bench-data: install  ## Measure the data plane; BENCH="--only shards" for a part of it
	@$(BIN)/python tests/benchmarks/bench_data.py $(BENCH)

bench-train: install  ## Measure the training plane; BENCH="--only loading" for a part of it
	@$(BIN)/python tests/benchmarks/bench_train.py $(BENCH)

lint: install  ## Check style, types, layers and docs
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python docs/check.py

format: install  ## Rewrite the code in the project's format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: install  ## Check that links and examples in the documents hold
	@$(BIN)/python docs/check.py

lock:  ## Resolve requirements.lock anew from pyproject.toml
	@infra/lock.sh "$(PYTHON)"

clean:  ## Remove what was built; corpora, datasets and models in MM_ROOT stay
	@rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
