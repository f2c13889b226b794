# Every target sets up what it needs; `make demo` and `make test` work in a fresh clone.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# The tests start some hundred processes, which need not compile every module again.
unexport PYTHONDONTWRITEBYTECODE
STAMP := $(VENV)/.setup-stamp

.PHONY: help setup check test-fast test test-nightly bench protos docs demo clean

help: ## what the targets do
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

setup: $(STAMP) ## make the virtual environment, again only when something changed

# Whatever the installation compiles or installs from.
NATIVE := hatch_build.py $(wildcard compression/lepton_compression/native/*)

$(STAMP): pyproject.toml constraints.txt $(filter-out %.so %__pycache__,$(NATIVE))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lepton needs Python 3.11 or newer; found $$($(PYTHON) --version) at $(PYTHON)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Lepton and its tools into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo]' --group dev
	@touch $@

# One BLAS thread a process: tests run in three processes on two cores, since some wait for what they started.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
TEST_RUN := -n 3 --dist loadgroup

check: setup ## formatting, lint, types, import layers, container files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

test-fast: setup ## the inner loop: everything but real processes and networks
	$(TEST) $(TEST_RUN) -m "not nightly" tests/unit tests/property tests/protocol tests/simulation tests/architecture

test: setup ## everything that must hold
	$(TEST) $(TEST_RUN) -m "not nightly" tests

test-nightly: setup ## long simulations, fuzzing and audits as well
	$(TEST) $(TEST_RUN) --timeout 3600 --hypothesis-profile nightly tests

bench: setup ## measure: `python -m benchmarks NAME` runs one
	$(BIN)/python -m benchmarks

protos: setup ## write the generated protobuf code anew
	$(BIN)/python protos/generate.py

docs: setup ## draw what the pages show of the code, and check that their links, commands and tables hold
	$(BIN)/python docs/draw.py
	$(TEST) tests/architecture/test_docs.py tests/architecture/test_drawn.py

demo: setup ## a real federation of five hospitals on this machine
	@$(BIN)/lepton demo

clean: ## remove the environment and everything the tools leave behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build lepton-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
