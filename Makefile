# Everything a developer types. `make help` lists the targets by their `##` comments.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
PEERS := pulsar-app-0.16.0 pulsar-galaxy-lib-0.15.15
PEERS_READY := $(PEERS:%=.venv-peers/%/.ready)
# Workers for pytest; `make test N=8` on a larger machine.
N ?= 2
PYTEST := $(BIN)/python -m pytest -n $(N) --dist worksteal

.PHONY: help demo venv peers test test-unit test-full coverage check format docs generate bench clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.ready-server ## Start a server, send it a real job, show and check the result
	@$(BIN)/python demo/run.py

test: .venv/.ready-dev $(PEERS_READY) ## All that CI tests, real peers included (a few minutes)
	$(PYTEST)

test-unit: .venv/.ready-dev ## The tests that need neither peers nor kills (under a minute)
	$(PYTEST) -m "not peer and not crash"

test-full: .venv/.ready-dev $(PEERS_READY) ## As `test`, with full counts: more kills, more examples
	LWR_TEST_FULL=1 $(PYTEST)

coverage: .venv/.ready-dev ## Which lines the tests that need no peers reach; report in coverage_html_report/
	$(BIN)/python -m coverage run -m pytest -q -m "not peer and not crash"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage html --quiet
	$(BIN)/python -m coverage report --skip-covered

check: .venv/.ready-dev ## Lint, formatting, types, direction of imports, links and generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python docs/check_links.py

format: .venv/.ready-dev ## Format the sources and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.ready-docs ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

generate: .venv/.ready-dev ## Write anew what is made from the sources: samples, configuration reference, states' diagram
	$(BIN)/python docs/generate.py

bench: .venv/.ready-dev $(PEERS_READY) ## Measure against Pulsar's server and nginx, side by side (half an hour)
	$(BIN)/python -m benchmarks

venv: .venv/.ready-dev ## Only make .venv, with all that development needs

peers: $(PEERS_READY) ## Only make the virtualenvs of the real peers

clean: ## Remove what the other targets made, but no data of a server
	rm -rf .venv .venv-peers docs/_build coverage_html_report .coverage .coverage.* build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "LWR needs Python 3.11 or newer. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "This Python has no ensurepip. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

# One stamp for each extra, so that the demo does not wait for the developer's tools.
.venv/.ready-%: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

.venv-peers/%/.ready: tests/peers/%.txt
	$(PYTHON) -m venv --clear .venv-peers/$*
	.venv-peers/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
