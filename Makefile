# footlight: `make demo` and `make test` work on a fresh Debian or Ubuntu with python3 and make.
.PHONY: help setup demo test test-slow check format bench binary clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done

help:
	@echo "make demo       one scripted session, from the first word to the site; needs no account"
	@echo "make test       the tests (make test-slow: kill loops, the binary)"
	@echo "make check      format, lint, types"
	@echo "make bench      the figures of the README, to bench/results.md"
	@echo "make binary     dist/footlight, one file that needs no Python"

setup: $(SETUP)

$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "footlight needs Python 3.11 or newer: set PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || sh .ci/need python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/footlight demo

test: setup
	$(BIN)/python -m pytest

test-slow: setup binary
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m bench --output bench/results.md

binary: dist/footlight

dist/footlight: $(SETUP) footlight.spec $(shell find daemon tunnel -name '*.py' -o -path '*/scripts/*' -type f)
	@command -v objdump >/dev/null || sh .ci/need binutils
	$(BIN)/pyinstaller --log-level WARN --noconfirm --distpath dist --workpath build footlight.spec

clean:
	rm -rf $(VENV) build dist *.egg-info
