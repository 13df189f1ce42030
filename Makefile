# The two commands of the README, and what developers run between them.
# Every target installs what it needs into $(VENV); nothing outside this folder and KAOS_HOME is touched.

VENV ?= .venv
# The first interpreter that really runs and is new enough (version-manager shims may exist yet refuse to start).
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := $(VENV)/bin
SCRATCH := scratch

.DEFAULT_GOAL := help
.PHONY: help install mnist test lint types imports unit bench docs clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(VENV)/.installed  ## a virtual environment with kaos in it

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "kaos needs Python 3.11 or newer; install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing kaos into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location -e '.[dev]' 2>$(VENV)/pip.err \
		|| { cat $(VENV)/pip.err >&2; exit 1; }
	@touch $@

mnist: install  ## train a network on real digits over a grid, and fetch the best model
	@$(BIN)/kaos template get --name mnist --out $(SCRATCH)/mnist --force
	@$(BIN)/kaos train deploy -s $(SCRATCH)/mnist/model-train -d $(SCRATCH)/mnist/data \
		-h $(SCRATCH)/mnist/hyperopt/params.json --cpu 1 --memory 2G --wait
	@$(BIN)/kaos train get --model best -o $(SCRATCH)/mnist/best --force

test: lint types imports unit  ## everything that CI checks

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

# A third more than two cores have places for: nearly half of the time tests wait for processes and disks. The
# folders in their order: the files of the first take longest, and the last ones to end are short.
unit: install
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

bench: install  ## speed, as ratios to a peer and to the physical floor
	$(BIN)/python -m bench

docs: install  ## regenerate what docs/ takes from the code
	$(BIN)/python -m kaos_cli.reference > docs/cli.md
	$(BIN)/python -m kaos_backend.engine.jobs.schedule.diagram docs/jobs.md

clean:  ## remove what make made (not KAOS_HOME)
	rm -rf $(VENV) $(SCRATCH) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
