# Everything from nothing: `make demo`, `make test`. Needs make and Python 3.11 or newer.
#
#   make demo [ARGS="--short"]     the demo (see `freshrec demo --help`)
#   make test [ARGS="-k name"]     lint, types, import rules and the tests (ARGS: for pytest)
#   make bounds                    the core's tests once more, its loops checking each index (slow)
#   make live                      the tests that run whole workers, commands and the demo
#   make benches                   the tests of the bench commands, each at a tiny size
#   make faults                    the tests that kill, freeze, cut off and damage real processes
#   make chaos [ARGS=--short]      everything goes wrong for ten minutes (two); then an audit
#   make lint                      ruff, mypy and the import rules alone
#   make format                    let ruff rewrite the files
#   make .venv                     the environment alone: .venv/bin/freshrec
#   make clean                     remove the environment (state/ and results/ are yours: they stay)
#
# The environment is rebuilt when pyproject.toml or constraints.txt changed. Another Python:
# `make PYTHON=python3.12 demo`.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
COMPILE := $(BIN)/python -c 'from online.core import Recommender; Recommender().warm_up()'

.DELETE_ON_ERROR:
.PHONY: demo test bounds live benches faults chaos lint format clean

demo: .venv
	@$(BIN)/freshrec demo $(ARGS)

test: lint
	$(BIN)/pytest --ignore=tests/faults --ignore=tests/benches --ignore=tests/live $(ARGS)

# Compiled loops do not check their indices. Compiled beforehand: it can take longer than one test may.
bounds: .venv
	NUMBA_BOUNDSCHECK=1 $(COMPILE)
	NUMBA_BOUNDSCHECK=1 $(BIN)/pytest tests/online $(ARGS)

live: .venv
	$(BIN)/pytest tests/live $(ARGS)

benches: .venv
	$(BIN)/pytest tests/benches $(ARGS)

faults: .venv
	$(BIN)/pytest tests/faults $(ARGS)

chaos: .venv
	@$(BIN)/python -m tests.faults.chaos $(ARGS)

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: .venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv: .venv/installed ;

# The stamp is written last: an installation that was interrupted is taken up again.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "freshrec needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install one, or name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into .venv: a few minutes the first time (about 3 GB, most of it torch) …"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@echo "Compiling the inner loops: a few minutes, once …"
	@rm -rf online/__pycache__/compiled-*
	@$(COMPILE)
	@touch $@

clean:
	rm -rf .venv
