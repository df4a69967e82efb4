# Two commands, each doing all of its own set-up in .venv: `make demo` and `make test`.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Everything the tool derives or installs stays inside the project's own environment.
export SDCONV_HOME := $(CURDIR)/$(VENV)/sdconv-home

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/python -m examples.demo demo

# Two files at a time, one thread each: torch's own threads would only wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# torch is asked for first and alone: a plain request brings gigabytes of CUDA libraries.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0 $(TORCH_OPTIONS)
	$(BIN)/pip install --quiet --editable '.[torch,ui,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo
