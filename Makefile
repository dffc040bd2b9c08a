# Two commands on a fresh machine: `make demo` and `make test`. Needs Python 3.11 or later (on Debian with python3-venv), and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --quiet --no-compile --constraint constraints.txt
# In place of pip's own compiling, which takes one core; what does not compile is a package's template, and is never imported.
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/(rllib|tests)/' $(VENV)/lib || true

.PHONY: demo test test-all lint format docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed  ## train on the sample, colourise the sample archive, write demo/report.html
	$(BIN)/colorize demo

test: $(VENV)/installed-dev  ## unit tests, then a real local Ray, then the program as its users run it; a process each
	$(BIN)/python -m pytest tests/unit --numprocesses logical --dist loadfile -m "not slow and not needs_data"
	$(BIN)/python -m pytest tests/ray -m "not slow and not needs_data"
	$(BIN)/python -m pytest tests/e2e -m "not slow and not needs_data"

test-all: $(VENV)/installed-dev  ## everything, the slow tests and those on COLORIZE_TEST_DATA (default ../shared/data) too
	$(BIN)/python -m pytest tests/unit --numprocesses logical --dist loadfile
	$(BIN)/python -m pytest tests/ray
	$(BIN)/python -m pytest tests/e2e

lint: $(VENV)/installed-dev  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev  ## rewrite the code as ruff formats it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed  ## regenerate docs/cli.md and the model cards
	$(BIN)/python -m jobs.docs

clean:  ## remove what the other targets made, except demo/ and runs/, where people put things of their own
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("colorize needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>&- || { echo '$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	$(COMPILE)
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	$(COMPILE)
	touch $(VENV)/installed $@
