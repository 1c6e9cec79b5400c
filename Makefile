# footlight: `make demo` and `make test` work on a fresh Debian or Ubuntu with python3 and make.
.PHONY: help setup bubblewrap proxy chromium demo test test-slow check format bench bench-quick peers binary clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Whether PyInstaller finds the shared library of the Python it runs in.
SHARED := -c 'from PyInstaller.depend.bindepend import get_python_library_path as find; find()' 2>/dev/null
SETUP := $(VENV)/.setup-done

help:
	@echo "make demo       one scripted session, from the first word to the site; needs no account"
	@echo "make test       the tests (make test-slow: those that take long, among them the binary's)"
	@echo "make check      format, lint, types"
	@echo "make bench      the figures of the README, to bench/results.md (make bench-quick: in about two minutes)"
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

bubblewrap:
	@command -v bwrap >/dev/null || sh .ci/need bubblewrap

chromium:
	@command -v chromium >/dev/null || sh .ci/need chromium

# What the tests put in the place of a proxy of one's own, and the certificates of their https.
proxy:
	@test -x /usr/sbin/nginx || sh .ci/need nginx-light
	@command -v openssl >/dev/null || sh .ci/need openssl

test: setup bubblewrap proxy
	$(BIN)/python -m pytest

test-slow: setup bubblewrap proxy chromium binary
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup peers
	$(BIN)/python -m bench --output bench/results.md

bench-quick: setup peers
	$(BIN)/python -m bench --quick

# What stands beside footlight in the figures, in an environment of its own. What needs node or a C compiler is left out without it.
PEERS := .venv-peers
peers: $(PEERS)/.done

$(PEERS)/.done: bench/peers/requirements.txt bench/peers/limit.c
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --requirement bench/peers/requirements.txt
	@if command -v node >/dev/null && command -v npm >/dev/null; then mkdir -p $(PEERS)/node && npm install --silent --no-audit --no-fund --prefix $(PEERS)/node ws@8; \
		else echo "no node: the figures do without its ws"; fi
	@if command -v cc >/dev/null; then cc -O2 -Wall -Wextra -o $(PEERS)/limit bench/peers/limit.c; else echo "no C compiler: the figures do without the limit"; fi
	@touch $@

binary: dist/footlight

# PyInstaller takes apart libraries with objdump and strip, and packs Python's own shared library.
dist/footlight: $(SETUP) footlight.spec $(shell find daemon tunnel -type f -not -name '*.pyc')
	@command -v objdump >/dev/null || sh .ci/need binutils
	@$(BIN)/python $(SHARED) || { test "$$($(BIN)/python -c 'import sys; print(sys.base_prefix)')" = /usr && sh .ci/need libpython3-dev; } \
		|| { echo "make binary needs a Python with a shared library: build it with --enable-shared, or: make clean binary PYTHON=/usr/bin/python3" >&2; exit 1; }
	$(BIN)/pyinstaller --log-level ERROR --noconfirm --distpath dist --workpath build footlight.spec

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info
