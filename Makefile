# Most targets first create a virtual environment in .venv, with the versions of constraints.txt.
# `make help` lists the targets by the text after `##`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help setup demo page test check lint format bench kills fuzz clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/ready  ## create .venv with the pinned dependencies

$(VENV)/ready: setup.cfg setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and sys.argv[1])' \
		'Python 3.11 or later is needed: make PYTHON=python3.11'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[baselines,experiments,plots,test]'
	touch $@

demo: $(VENV)/ready  ## run the demonstration: train and compare systems on a small synthetic dataset
	$(BIN)/python -m experiments.demo --output demo

demo/cllm4rec/finetune: | $(VENV)/ready
	$(MAKE) demo

page: demo/cllm4rec/finetune $(VENV)/ready  ## serve the run of the demonstration and open its page; trains it if absent
	@set -o pipefail; $(BIN)/cllm4rec serve --run demo/cllm4rec --port 0 2>&1 | while read -r line; do \
		echo "$$line"; \
		if [[ $$line == "serving on "* ]]; then $(BIN)/python -m webbrowser "$${line#serving on }"; fi; done

test: $(VENV)/ready  ## run the fast tests; SLOW=1 adds the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 10 $(if $(SLOW),,-m 'not slow')

bench: $(VENV)/ready  ## run the benchmarks of time and memory in their short form
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.benchmarks --output bench --short

kills: $(VENV)/ready  ## kill commands at every disk change, and run the races; ONLY='pretrain ease' selects
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.kills --only '$(ONLY)'

fuzz: $(VENV)/ready  ## mutate folders, configurations and tables for ten minutes; MINUTES=60 for longer
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.fuzzing --minutes $(or $(MINUTES),10)

check: lint test  ## run lint, type checks and the fast tests: required for each commit

lint: $(VENV)/ready  ## check style, format and types (ruff, mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready  ## fix style and format (ruff)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## delete .venv and the output of demo, bench and builds
	rm -rf $(VENV) bench demo build *.egg-info
