# The two first commands are `make demo` and `make test`; both need Python 3.11+ and nothing else.
# Each installs what it needs into .venv once; the stamps make the second run fast.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2
ARGS   ?=

bin  := $(VENV)/bin
py   := $(bin)/python
code := src tests tools $(wildcard bench)

# ARGS is handed on: make demo ARGS="--orders 50", make test ARGS="-k lease"
.PHONY: help demo test oldest check format bench soak docs clean

help:
	@echo "make demo    an order service that is killed again and again, and an audit of what it did"
	@echo "make test    every test, in small sizes"
	@echo "make oldest  the tests of agents with the oldest Pydantic AI that is supported, if that is another one"
	@echo "make check   formatting, lint, types"
	@echo "make format  rewrite the formatting"
	@echo "make docs    run every code block of README and docs/"
	@echo "make bench   measure, and write docs/benchmarks.md"
	@echo "make soak    every test, in full sizes"
	@echo "make clean   remove .venv and caches"

demo: $(VENV)/.installed
	@$(bin)/outlive demo $(ARGS)

test: $(VENV)/.installed-test
	@$(py) -m pytest -n $(JOBS) --dist worksteal $(ARGS)

oldest: $(VENV)/.installed-test
	@$(py) -m tools.oldest $(ARGS)

check: $(VENV)/.installed-test
	@$(bin)/ruff format --check $(code)
	@$(bin)/ruff check $(code)
	@$(bin)/mypy src $(wildcard tests/typing)

format: $(VENV)/.installed-test
	@$(bin)/ruff format $(code)
	@$(bin)/ruff check --fix $(code)

docs: $(VENV)/.installed-test
	@$(py) -m pytest tests/house/test_docs.py $(ARGS)

bench: $(VENV)/.installed-test $(VENV)-dbos/.installed
	@$(py) -m bench --dbos-python $(VENV)-dbos/bin/python $(ARGS)

soak: export OUTLIVE_TEST_SIZE = full
soak: $(VENV)/.installed-test
	@$(py) -m pytest -n $(JOBS) --dist worksteal --timeout 7200 $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-dbos $(VENV)-oldest build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(py):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Outlive needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed: on Debian and Ubuntu install the package python3-venv." >&2; \
	  rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(py)
	@echo "Installing Outlive into $(VENV) ..."
	@$(py) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml tests/peers/package-lock.json | $(py)
	@echo "Installing Outlive and its tests into $(VENV) ..."
	@$(py) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@$(py) -m tools.peers
	@touch $@ $(VENV)/.installed

$(VENV)-dbos/.installed: bench/dbos-requirements.txt | $(py)
	@echo "Installing DBOS, which the benchmarks compare with, into $(VENV)-dbos ..."
	@$(PYTHON) -m venv $(VENV)-dbos
	@$(VENV)-dbos/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
