# The commands of tenantry. Each sets up what it needs in .venv and is quick when nothing changed.
#
#   make run ARGS=--once          passes ARGS on
#   make test PYTHON=python3.12   takes another interpreter for a new .venv

PYTHON ?= python3
JOBS   ?= 3  # the tests wait as much as they work
ARGS   ?=

# Hundreds of tests start processes of their own, which take half the time where modules were compiled once.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run check test bench soak pins clean venv

bin     := .venv/bin
venv    := $(PYTHON) -m scripts.venv
sources := $(wildcard src tests benchmarks examples scripts)

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run:  ## load 336,776 real flights as 16 tenants and ask them questions (ARGS="--once --database postgresql://…")
	@$(venv) .venv build cli demo project
	@exec $(bin)/python -m examples.flights $(ARGS)

venv:  ## set up .venv for work on tenantry
	@$(venv) .venv build dev arq demo project

check: venv  ## lint, format, types, layers, tenantry.sync up to date, no registry host in any file
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy $(sources)
	$(bin)/lint-imports --no-logo
	$(bin)/python -m scripts.sync --check
	$(bin)/python -m scripts.check_hosts

test: venv  ## run everything against real servers, then import tenantry in a bare environment
	@$(bin)/python -m scripts.provision
	$(bin)/pytest -n $(JOBS) $(ARGS)
	$(bin)/python -m scripts.check_bare

bench:  ## measure against peers in one run (ARGS="isolated-read --quick")
	@$(venv) .venv build bench project
	@exec $(bin)/python -m benchmarks $(ARGS)

soak: venv  ## run the long versions of the tests
	@$(bin)/python -m scripts.provision
	$(bin)/pytest -n $(JOBS) -m "soak or not soak" --hypothesis-profile=soak --timeout=3600 $(ARGS)

pins: venv  ## resolve requirements/*.in together and rewrite the pinned requirements/*.txt
	$(bin)/python -m scripts.pins

clean:  ## remove environments, caches and builds
	rm -rf .venv .venv-bare .venv*.lock build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
