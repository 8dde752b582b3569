# Every target works from a fresh clone: what it needs is installed into .venv first, and only when it changed.

PYTHON ?= python3
# Test processes: as many as there are cores, at most this many.
WORKERS ?= 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
# Through the environment rather than `-c`, so that the build backend is held to the same pins.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check docs bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.dev  ## make .venv with everything for working on restain

demo: .venv/.core  ## normalize a slide into demo/ (installs only the core)
	$(BIN)/restain demo -o demo/ --overwrite

test: .venv/.dev  ## run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses=$(WORKERS)

lint: .venv/.dev  ## ruff (rules and format) and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test  ## lint, then test

docs: .venv/.dev  ## build docs/_build/html and run the examples in it; warnings are errors
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	$(BIN)/sphinx-build -q -W --keep-going -b doctest docs docs/_build/doctest

bench: .venv/.dev  ## run every script in benchmarks/
	@set -e; for script in $(filter-out benchmarks/common.py,$(sort $(wildcard benchmarks/*.py))); do \
		echo "== $$script"; $(BIN)/python "$$script"; \
	done

clean:  ## remove everything the targets above made, .venv included
	rm -rf .venv demo dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# A stamp is touched only when its install succeeded, so an interrupted one is simply run again.
$(BIN)/pip:
	$(PYTHON) -m venv .venv

.venv/.core: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) -e .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) -e '.[dev]'
	@touch .venv/.core $@
