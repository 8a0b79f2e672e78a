# Every target makes its own environment first: Python >= 3.11 and make are all it takes.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Whose control planes may as well be several; the others do something to one process, its file, or PostgreSQL itself.
STORIES := grants tasks approvals freezes renew break_glass context replicas

.PHONY: help env demo test test-replicas siege chaos fuzz check docs bench bench-revoke bench-decide bench-plan bench-cpu bench-preview bench-cut bench-cli lock clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(READY) ## Make the environment in .venv

# uv if it is there, else venv and pip; both install only what the lock's hashes allow.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Shorthold needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . ; \
	fi
	@touch $@

demo: $(READY) ## Tell the whole story on embedded servers, checking itself at every step
	@$(BIN)/shorthold demo

test: $(READY) ## Run every test: real OpenBao, real PostgreSQL, nothing mocked on the way
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test-replicas: $(READY) ## Run the stories with control planes of two processes over PostgreSQL (minutes)
	@REPLICAS=1 $(BIN)/python -m pytest $(addprefix tests/e2e/test_,$(addsuffix .py,$(STORIES)))

siege: $(READY) ## Kill leaders and servers amid many revocations, and cut lines for long: ROUNDS=20 (hours)
	@SIEGE_ROUNDS=$(or $(ROUNDS),20) SIEGE_GRANTS=$(or $(GRANTS),1000) SIEGE_KILLS=$(or $(KILLS),50) \
	  SIEGE_BULK=$(or $(BULK),20) SIEGE_OUTAGES=$(or $(OUTAGES),5,60,600) $(BIN)/python -m pytest -p no:randomly -rP \
	  tests/e2e/test_faults_cluster.py tests/e2e/test_faults_lost_track.py tests/e2e/test_faults_answers.py \
	  -k "amid or killed_while_it_revoked or leader_that_is_killed"

chaos: $(READY) ## Kill servers and control planes by SEEDS=1000 schedules FROM=0 on; SEED=n STORE=… repeats one
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED),--from $(or $(FROM),0) --seeds $(or $(SEEDS),1000)) \
	  $(if $(STORE),--store $(STORE))

fuzz: $(READY) ## Try EXAMPLES=200 requests on every route, for every kind of caller; 700 make 100 000 (half an hour)
	@FUZZ_EXAMPLES=$(or $(EXAMPLES),200) FUZZ_SEED=$$(date +%s) $(BIN)/python -m pytest tests/unit/test_http_schema.py --timeout=3600

check: $(READY) ## Run the gates: ruff, basedpyright strict, import contracts, docs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports
	@$(BIN)/mkdocs build --strict --quiet -f .mkdocs.yml --site-dir $(CURDIR)/$(VENV)/site

bench: $(READY) ## Measure a grant against the bare server, in one run (not a test)
	@$(BIN)/python -m benchmarks.grant

bench-revoke: $(READY) ## Measure finish until verified gone, 1, 10 and 100 at once, against the bare server
	@$(BIN)/python -m benchmarks.revoke

bench-decide: $(READY) ## Measure verify and decide with 1, 100 and 1000 entitlements loaded
	@$(BIN)/python -m benchmarks.decide

bench-plan: $(READY) ## Measure a plan of 1 000 entitlements, cold, and count what it asks Vault
	@$(BIN)/python -m benchmarks.plan

bench-cpu: $(READY) ## Read from the kernel what processor time a grant and its proved end take in the control plane
	@$(BIN)/python -m benchmarks.cpu

bench-preview: $(READY) ## Measure previews by each selector in a PostgreSQL with GRANTS=1000000, OPEN=10000 of them open
	@$(BIN)/python -m benchmarks.preview --grants $(or $(GRANTS),1000000) --open $(or $(OPEN),10000)

bench-cut: $(READY) ## Measure cuts of LEASES="2000 10000" until all are gone, beside Vault's own prefix revocation
	@$(BIN)/python -m benchmarks.cut $(foreach leases,$(or $(LEASES),2000 10000),--leases $(leases))

bench-cli: $(READY) ## Measure how fast commands start, against a bare click program
	@$(BIN)/python -m benchmarks.cli

lock: ## Renew requirements.lock (needs uv)
	@uv pip compile pyproject.toml --extra dev-servers --extra mcp --extra spiffe --group dev --universal --generate-hashes \
	  --no-header --no-annotate --python-version 3.11 --quiet --output-file requirements.lock

clean: ## Remove the environment and caches; .shorthold/ is yours: `shorthold dev down --destroy`
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
