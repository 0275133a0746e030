# Each target sets up what it needs: Debian packages when run as root, and a virtual environment from the lock file.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.complete
K3S_BINARY ?=
KEEP ?=
SEED ?=

FUZZ_SECONDS ?= 300
FUZZ_TARGETS ?=

export K3S_BINARY KEEP SEED FUZZ_SECONDS

.PHONY: help demo test test-all lint unit fuzz bench story lab-up lab-down lock docs clean

help: ## Say what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

$(STAMP): requirements/dev.txt pyproject.toml tests/setup.sh tests/quiet-install.sh
	tests/setup.sh $(VENV)
	touch $(STAMP)

$(VENV)/.fuzz: $(STAMP) requirements/fuzz.txt
	$(PYTHON) -m pip install -q --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	touch $@

demo: $(STAMP) ## Tell the main job's story on three hosts with no way out
	$(PYTHON) -m tests.demo

test: $(STAMP) ## Lint, unit, fuzz corpus, integration and lab tests (long series sampled by a printed seed)
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint unit
	$(PYTHON) -m pytest -n 3 --dist loadfile tests/integration
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/lab

test-all: lint ## The same with every long series run whole
	$(PYTHON) -m pytest tests/unit tests/fuzz --whole-series
	$(PYTHON) -m pytest tests/integration tests/lab --whole-series

unit: $(STAMP) ## Unit tests and the fuzz corpus alone: no network, no root
	$(PYTHON) -m pytest -n 2 tests/unit tests/fuzz

lint: $(STAMP) ## ruff, mypy --strict, ansible-lint (production), yamllint, shellcheck
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PYTHON) -m mypy
	$(VENV)/bin/yamllint --strict .
	ANSIBLE_INVENTORY=inventory/example PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/ansible-lint --offline --strict
	git ls-files -z | xargs -0 -r grep -lIZE '^#!.*\b(ba)?sh\b' -- | xargs -0 -r shellcheck

fuzz: $(STAMP) $(VENV)/.fuzz ## Search for inputs that break something, FUZZ_SECONDS= (300) for each target (FUZZ_TARGETS=)
	$(PYTHON) -m tests.fuzz run $(FUZZ_TARGETS)

bench: $(STAMP) ## Ratios to docker-registry and nginx on this machine, and build/bench.json (BENCH_QUICK=1: only that it works)
	tests/bench/setup.sh
	$(PYTHON) -m tests.bench

story: $(STAMP) ## The main job's story as lab tests, on three hosts
	$(PYTHON) -m pytest tests/lab/test_story.py

lab-up: $(STAMP) ## Boot three hosts and leave them running
	$(PYTHON) -m tests.lab up

lab-down: $(STAMP) ## Stop them and leave nothing behind
	$(PYTHON) -m tests.lab down
	$(PYTHON) -m tests.lab --id demo down

docs: $(STAMP) ## Generate the reference pages
	$(PYTHON) -m tests.docs.generate

lock: $(STAMP) ## Renew the lock files
	cd requirements && for name in runtime controller dev fuzz; do \
	  ../$(VENV)/bin/pip-compile -q --generate-hashes --strip-extras --no-emit-index-url --no-emit-find-links \
	    --allow-unsafe -o $$name.txt $$name.in; done

clean: ## Remove what the targets made in this directory
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
