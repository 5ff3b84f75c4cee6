# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the others.
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
ifndef RUN
RUN := demo-$(shell date +%Y%m%d-%H%M%S)
endif
# The first Python that the constraints are for; `make test PYTHON=python3.12` names another.
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
  && echo $$p && break; done),python3)
PYTEST = $(BIN)/python -m pytest -n 2 --dist worksteal
# For pipefail: an installation that fails must fail before its pipe too.
SHELL := bash

.DEFAULT_GOAL := help
.PHONY: help demo test fast lint format constraints test-latest clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed  ## train, evaluate and report an agent that learns to explore
	@echo "An agent with memory learns to explore 5-arm bandits, with two Ray workers: a few minutes."
	@echo "Then it is compared with five baselines; all of it goes to runs/$(RUN)/."
	@$(BIN)/palaestra train demo --workers 2 --run-id $(RUN)

test: $(VENV)/.installed-dev  ## every test; ARGS="..." goes to pytest
	$(PYTEST) $(ARGS)

fast: $(VENV)/.installed-dev  ## the tests that take less than ten seconds each
	$(PYTEST) -m "not slow" $(ARGS)

lint: $(VENV)/.installed-dev  ## ruff and mypy, in the versions that pyproject.toml names
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(VENV)/.installed-dev  ## renew constraints.txt with the newest versions
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python tools/constraints.py

test-latest:  ## every test with the newest versions instead of those of constraints.txt
	rm -rf .venv-latest
	$(MAKE) test VENV=.venv-latest CONSTRAINTS=

clean:  ## remove the environments and what the tools leave
	rm -rf .venv .venv-latest build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

CONSTRAINTS ?= --constraint constraints.txt
# What pip says, on one line that moves, and on a terminal only.
MOVING_LINE = if [ -t 1 ]; \
  then awk '{printf "\r\033[K%.78s", $$0; fflush()} END {printf "\r\033[K"}'; else cat >/dev/null; fi

define install
	@echo "Installing Palaestra $(2)into $(VENV): a minute or two, more if torch has to be downloaded."
	@set -o pipefail; $(BIN)/python -m pip install $(CONSTRAINTS) --no-build-isolation \
	  --editable '.$(1)' 2>$(VENV)/pip.log | { $(MOVING_LINE); } || { cat $(VENV)/pip.log; exit 1; }
	@touch $@
endef

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ... names one."; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --upgrade $(CONSTRAINTS) pip setuptools
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.made
	$(call install,,)

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.made
	$(call install,[dev-all],and its development tools )
	@touch $(VENV)/.installed
