# `make demo` and `make test` set themselves up: a virtual environment in .venv, dependencies pinned by constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.PHONY: bench demo test fuzz kills check lint format clean

$(VENV)/ready: setup.cfg setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[baselines,plots,test]'
	touch $@

demo: $(VENV)/ready  ## the main job on a small world, end to end
	$(BIN)/python -m experiments.demo --output demo

test: $(VENV)/ready  ## the fast tests; with SLOW=1 all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 10 $(if $(SLOW),,-m 'not slow')

bench: $(VENV)/ready  ## the benchmarks in their short form
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.benchmarks --output bench --short

kills: $(VENV)/ready  ## every command killed at every change of the disk; ONLY='pretrain ease' for some
	OMP_NUM_THREADS=1 $(BIN)/python tests/kills.py --only '$(ONLY)'

fuzz: $(VENV)/ready  ## random input as long as MINUTES say
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzzing.py --minutes $(or $(MINUTES),10)

check: lint test  ## what each commit passes

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) bench demo build *.egg-info
