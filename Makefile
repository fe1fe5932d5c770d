# Targets are documented by their ## comments; `make` prints them.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
IMAGE  ?= snat-race
# Where no registry can be reached, a Debian or Ubuntu with python3-venv that is called so locally will do.
OWN_BASE   := snat-race-base:bookworm
BASE_IMAGE ?= $(shell docker image inspect $(OWN_BASE) >/dev/null 2>&1 && echo $(OWN_BASE) || echo python:3.13-slim-bookworm)
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup server client lab test lint coverage docker-build docker-race docker-report test-docker bench forecast-check soak fuzz reference examples clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Options go through ARGS, as in: make client ARGS='-r 10.0.0.1:8080'"

setup: $(VENV)/.ready ## Make the virtual environment in .venv

server: $(VENV)/.ready ## Accept connections
	@exec $(BIN)/python -m snat_race server $(ARGS)

client: $(VENV)/.ready ## Dial a server
	@exec $(BIN)/python -m snat_race client $(ARGS)

lab: $(VENV)/.ready ## Show the race on this machine, and what cures it
	@exec $(BIN)/python -m snat_race lab $(ARGS)

test: lint ## Run every check: ruff, mypy, import contracts, packages, pytest
	@$(BIN)/pytest $(ARGS)

lint: $(VENV)/.ready-dev ## Run the static checks only
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/check_packages.py

coverage: $(VENV)/.ready-dev ## Run the tests, print which branches they take, and fail below 90 %
	@rm -rf .coverage .coverage.*
	@$(BIN)/coverage run -m pytest $(ARGS); tests=$$?; \
	    $(BIN)/coverage combine --quiet; $(BIN)/coverage report && exit $$tests

docker-build: ## Build the image snat-race; BASE_IMAGE=... from another base
	@scripts/docker-server require
	docker build --network host --build-arg BASE_IMAGE=$(BASE_IMAGE) -f docker/Dockerfile -t $(IMAGE) .

docker-race: ## Race two containers on this Docker host; ARGS=--fixed compares with random ports
	@SNAT_RACE_IMAGE=$(IMAGE) scripts/docker-race $(ARGS)

docker-report: ## Show what docker-race measured; ARGS='--format markdown' for an issue
	@scripts/docker-server require
	@[ -e results/race.json ] || { echo "nothing was measured yet; run: make docker-race"; exit 2; }
	@docker run --rm --network none --user "$$(id -u):$$(id -g)" -v "$(CURDIR)/results:/results:ro" $(IMAGE) report $(ARGS) /results/race.json

test-docker: $(VENV)/.ready-dev ## Check the containers against a Docker engine; skip if there is none
	@SNAT_RACE_IMAGE=$(IMAGE) PYTHON=$(BIN)/python scripts/docker-e2e $(ARGS)

bench: $(VENV)/.ready ## Measure the dialer against C, and how steady the lab is
	@$(BIN)/python scripts/bench.py

forecast-check: $(VENV)/.ready-dev ## Compare the forecast with what independent clients lose
	@$(BIN)/python scripts/forecast_check.py

fuzz: $(VENV)/.ready-dev ## Give every parser changed inputs; ARGS='--minutes 5'
	@PYTHONPATH=. $(BIN)/python scripts/fuzz.py $(ARGS)

soak: $(VENV)/.ready-dev ## Run everything that runs for long; see whether anything grows; ARGS='--minutes 30'
	@$(BIN)/python -m scripts.soak $(ARGS)

reference: $(VENV)/.ready ## Write docs/reference.md, the man page and the completions from the commands
	@$(BIN)/python -m scripts.reference

examples: $(VENV)/.ready ## Run the commands of the documentation again, and write their outputs down
	@$(BIN)/python -m scripts.documentation

clean: ## Remove the virtual environment and the caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "snat_race needs Python 3.11 or newer as '$(PYTHON)': sudo apt-get install python3, or make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "Python's venv module is missing: sudo apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) ..."
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
