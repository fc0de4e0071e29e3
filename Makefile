# `make` alone lists the targets. Nothing here needs root, and nothing outside this directory changes.
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := .venv/bin
LOCAL := .venv/.installed-local
DEV := .venv/.installed-dev

.PHONY: help install install-dev

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

install: $(LOCAL) ## make .venv with all that `make up` needs
	@echo "install: .venv is ready"

install-dev: $(DEV) ## the same and what tests and checks need
	@echo "install-dev: .venv is ready for tests and checks"

$(LOCAL): requirements/local.txt pyproject.toml
	@scripts/install.sh local
	@touch $@

$(DEV): requirements/dev.txt $(LOCAL)
	@scripts/install.sh dev
	@touch $@
