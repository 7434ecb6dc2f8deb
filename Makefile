# KAITO in Python. `make help` lists the targets; every one sets up what it needs.
#
# The environment is built in three steps, because the CPU engine's wheels need care:
#   1. torch's CPU build alone, without dependencies: PyPI has only the CUDA builds, PyTorch's own index has the rest.
#   2. the engine and all that the project needs, exactly as in constraints/cpu.txt, without asking each package for
#      its dependencies: three that the engine names break or bloat a CPU installation (hack/lock.py says which).
#   3. the project itself, in place.

PYTHON    ?= python3
VENV      ?= .venv
BIN       := $(VENV)/bin
PIP       := $(BIN)/python -m pip --disable-pip-version-check
STAMP     := $(VENV)/.stamp
TORCH     := torch==2.13.0
TORCH_CPU ?= https://download.pytorch.org/whl/cpu
# On two workers; test/conftest.py says what stays together.
PARALLEL  ?= -n 2 --dist loadgroup --no-loadscope-reorder
KAITO_HOME ?= $(CURDIR)/.kaito

export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install install-cpu demo demo-tuning up down test test-fast check format generate soak clean

help:  ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)-run  ## The environment in .venv: the project with the CPU engine

install-cpu: install  ## The same, by the name that says which engine it is

demo: $(STAMP)-run  ## The whole path once: cluster, operator, Workspace, GPU node (simulated), vLLM, /chat
	@$(BIN)/kaito demo

demo-tuning: $(STAMP)-run  ## Tuning: a dataset becomes an adapter image, which a second Workspace serves
	@$(BIN)/kaito demo --tuning

up: $(STAMP)-run  ## The same cluster, kept running; prints the KUBECONFIG to export
	@KAITO_HOME=$(KAITO_HOME) $(BIN)/kaito up

down: $(STAMP)-run  ## Stop the cluster of `make up`
	@KAITO_HOME=$(KAITO_HOME) $(BIN)/kaito down

test: $(STAMP)-dev  ## All tests, on the embedded API server, and on a real one where KUBEBUILDER_ASSETS names it
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-fast: $(STAMP)-dev  ## Without the engine and the end-to-end tests
	$(BIN)/python -m pytest -m "not engine and not e2e" $(PARALLEL) $(PYTEST_ARGS)

check: $(STAMP)-dev  ## Format, lint, types, the rooms' arrows, generated files fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python hack/generate.py --check

format: $(STAMP)-dev  ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(STAMP)-dev  ## Write the generated files (CRDs) anew
	$(BIN)/python hack/generate.py

soak: $(STAMP)-dev  ## The tests that sample, in full: every kill point, long fuzzing
	KAITO_SOAK=1 $(BIN)/python -m pytest -m "not engine" --timeout 3600 $(PARALLEL) $(PYTEST_ARGS)

clean:  ## Remove the environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; next: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP)-run: pyproject.toml constraints/cpu.txt | $(VENV)/bin/python
	@echo "installing the project and the CPU engine into $(VENV) (once; about 2 minutes and 3 GB)"
	@$(BIN)/python -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null || \
	  $(PIP) install --quiet --no-deps --no-compile --extra-index-url $(TORCH_CPU) "$(TORCH)+cpu"
	@$(PIP) install --quiet --no-deps --no-compile -r constraints/cpu.txt
	@$(PIP) install --quiet --no-deps --editable .
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	@touch $@

$(STAMP)-dev: $(STAMP)-run constraints/dev.txt
	@$(PIP) install --quiet --no-deps -r constraints/dev.txt
	@touch $@
