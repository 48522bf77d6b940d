# Every target prints the commands it runs; all of them can be run by hand.
#   setup  everything installed        up     the whole system, with its demo
#   check  what must hold before tests test   check, then every test
#   fix    what can be put right alone contract  regenerate what the browser takes from the server
#   interop exchange images with other programs of the trade (Debian's, see tests/interop)
#   bench  measure a running system    screenshots  the user guide's pictures anew
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := up
.PHONY: setup up test test-server test-others interop check fix contract contract-check bench screenshots

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
PORT ?=
BIN := .venv/bin
NPM := npm --prefix frontend
CONTRACT := .cache/contract
GENERATED := frontend/src/api/schema.ts frontend/src/contract.ts frontend/src/protocol.schema.json

# Tools that import the settings need them to be readable; nothing listens behind these addresses.
TOOL_ENV := DELINEATE_SECRET_KEY=only-for-tools-that-import-the-settings-0000 \
  DATABASE_URL=postgres://nobody@127.0.0.1:9/none REDIS_URL=redis://127.0.0.1:9/0 \
  STORAGE_URL=file:///nonexistent DJANGO_SETTINGS_MODULE=delineate.config.settings

setup: .venv/installed .cache/frontend-installed

up: .venv/installed frontend/dist/index.html
	@# exec: the system gets Ctrl-C and TERM itself, with no shell between.
	exec $(BIN)/delineate up $(if $(PORT),--port $(PORT))

# Two halves side by side, each with databases of its own: much of both is waiting.
test: check frontend/dist/index.html
	$(MAKE) --no-print-directory -j2 test-server test-others
	$(NPM) test

test-server:
	$(BIN)/pytest tests/delineate

test-others:
	$(BIN)/pytest tests --ignore=tests/interop --ignore=tests/delineate

interop: setup
	$(BIN)/pytest tests/interop

check: setup contract-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TOOL_ENV) $(BIN)/mypy
	$(TOOL_ENV) $(BIN)/lint-imports
	$(TOOL_ENV) $(BIN)/python -W ignore::RuntimeWarning platform/manage.py makemigrations --check --dry-run
	$(NPM) run lint
	$(NPM) run typecheck

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(NPM) run lint -- --fix

contract: setup
	mkdir -p $(CONTRACT)
	$(TOOL_ENV) $(BIN)/python -m delineate.config.openapi > $(CONTRACT)/openapi.json
	$(TOOL_ENV) $(BIN)/python -m delineate.interaction.protocol > $(CONTRACT)/protocol.schema.json
	$(NPM) run contract

# Generated anew and compared with what was there, so that it also judges what is not committed yet.
contract-check: setup
	before=$$(cat $(GENERATED) | sha256sum); $(MAKE) contract; \
	  if [ "$$before" != "$$(cat $(GENERATED) | sha256sum)" ]; then \
	    echo "The browser's copy of the contract was stale; it has been made anew: commit it."; exit 1; fi

bench: setup
	$(BIN)/python -P benchmarks/click.py $(if $(PORT),--url http://127.0.0.1:$(PORT))
	node benchmarks/paint.mjs $(if $(PORT),--url http://127.0.0.1:$(PORT))

screenshots: setup frontend/dist/index.html
	DELINEATE_PICTURES=docs/screenshots $(BIN)/pytest tests/e2e

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 or newer is needed, and $(PYTHON) is not it: install it, or say where it is with make PYTHON=…"; exit 1; }
	$(PYTHON) -m venv .venv

# torch in a call of its own: anything resolved beside it could pull a newer one.
.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/pip install --disable-pip-version-check --quiet \
	  "$$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
	$(BIN)/pip install --disable-pip-version-check --quiet -e ".[dev]"
	touch $@

.cache/frontend-installed: frontend/package.json frontend/package-lock.json
	@node -e 'process.exit(+(parseInt(process.versions.node) < 20))' 2>/dev/null \
	  || { echo "Node 20 or newer is needed, and $$(command -v node || echo none) is not it: install it from nodejs.org or your distribution."; exit 1; }
	$(NPM) ci --no-audit --no-fund
	mkdir -p .cache && touch $@

FRONTEND_SOURCES := $(shell find frontend -type d \( -name node_modules -o -name dist \) -prune -o -type f -print 2>/dev/null)
frontend/dist/index.html: .cache/frontend-installed $(FRONTEND_SOURCES)
	$(NPM) run build
	touch $@
