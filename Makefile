# Everything a fresh machine needs is python3, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
READY := $(VENV)/.ready
OUT ?= demo
LGG ?= work/lgg

.PHONY: demo test test-slow lgg bench docs clean

demo: $(READY)
	$(BIN)/brainfed demo --out $(OUT)

test: $(READY)
	$(BIN)/ruff format --check src tests docs
	$(BIN)/ruff check src tests docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not slow"

test-slow: $(READY)
	$(BIN)/pytest -m slow

# A federation over the real scans of ../shared/data/lgg-sites; resumable.
lgg: $(READY)
	$(BIN)/python tests/lgg.py $(LGG)

bench: $(READY)
	$(BIN)/python tests/benchmarks/bench_help.py
	$(BIN)/python tests/benchmarks/bench_reading.py
	$(BIN)/python tests/benchmarks/bench_aggregate_memory.py

docs: $(READY)
	$(BIN)/python docs/generate.py

# torch first: its pinned version is the CPU build where an index offers one.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) hatchling editables ruff mypy import-linter pytest pytest-xdist hypothesis
	$(PIP) --no-build-isolation -e .
	touch $(READY)

clean:
	rm -rf $(VENV) build dist demo
