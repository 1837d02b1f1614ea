# lad_eval: `make eval` and `make test` set everything up; `make help` lists the rest.
PYTHON ?= python3
MODEL  ?= lad-tiny
TASKS  ?=
LIMIT  ?=
ARGS   ?=
# Without TASKS: the first samples of four tasks, about a minute on two cores; TASKS=scenes runs all that is embedded.
CHOSEN = $(if $(TASKS),--tasks '$(TASKS)' $(if $(LIMIT),--limit $(LIMIT)),--tasks scenes_main --limit $(or $(LIMIT),100))

VENV := .venv
BIN  := $(VENV)/bin
UV   := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)

.DEFAULT_GOAL := help
.PHONY: help setup eval demo paper report check test test-slow fuzz lint bench tiny leaderboard clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables    MODEL=<folder or hub id> TASKS=<tasks or groups> LIMIT=<samples> ARGS='<further options>'"

.uv/bin/uv:
	@$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet uv

$(VENV)/bin/python: | $(filter .uv/bin/uv,$(UV))
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)

$(VENV)/.setup: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing lad_eval into $(VENV) ..." >&2
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.setup
	@$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/.setup ## Install the package and what it needs into .venv

eval: $(VENV)/.setup ## Evaluate MODEL on TASKS and print the table
	@$(BIN)/lad-eval run --model '$(MODEL)' $(CHOSEN) $(ARGS)

demo: $(VENV)/.setup ## Show position bias in one question, and its repair; writes demo.png
	@$(BIN)/lad-eval demo --model '$(MODEL)' $(ARGS)

test: $(VENV)/.dev ## Run the tests but the slow ones
	@$(BIN)/python -m pytest -n auto -m 'not slow' $(ARGS)

test-slow: $(VENV)/.dev ## Run the slow tests
	@$(BIN)/python -m pytest -n auto -m slow $(ARGS)

fuzz: $(VENV)/.dev ## Put senseless calls and damaged stores to the command line (ARGS='--seed 1 --calls 1000 --stores 1500'; an hour)
	@$(BIN)/python -m tests.fuzz $(ARGS)

paper: $(VENV)/.setup ## Regenerate the paper's tables and figures for MODEL
	@$(BIN)/lad-eval study lad --model '$(MODEL)' $(if $(LIMIT),--limit $(LIMIT)) $(ARGS)

report: $(VENV)/.setup ## Show the finished runs in one HTML page, report.html
	@$(BIN)/lad-eval report $(ARGS)

check: $(VENV)/.setup ## Hold lad-tiny to its baseline (ARGS=--replay: from stored evidence, in seconds)
	@$(BIN)/lad-eval check results/baselines/lad-tiny.json $(ARGS)

lint: $(VENV)/.dev ## Check style, types and words
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m tests.words

bench: $(VENV)/.dev ## Measure speed and memory as ratios, write docs/performance.md's tables
	@$(BIN)/python -m benchmarks $(ARGS)

tiny: $(VENV)/.dev ## Retrain the embedded model (at most an hour on 2 cores)
	@$(BIN)/python -m recipes.lad_tiny.train $(ARGS)

leaderboard: $(VENV)/.setup ## Rebuild results/leaderboard.md from the runs
	@mkdir -p results
	@$(BIN)/lad-eval leaderboard --format md $(ARGS) > results/leaderboard.md.new && mv results/leaderboard.md.new results/leaderboard.md
	@cat results/leaderboard.md

clean: ## Remove the environment; results stay
	@rm -rf $(VENV) .uv
