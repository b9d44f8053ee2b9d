# Needs only Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test chaos check bench clean

demo: $(VENV)/.runtime
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto

# The long form of tests/chaos: some 25 minutes on two cores. CHAOS="--schedules 10" and the like.
chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.schedules $(CHAOS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/flights.py

clean:
	rm -rf $(VENV) demo-output build dist

$(VENV)/.runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("pyrmute-tasks needs Python 3.11 or later; set PYTHON=...") if sys.version_info < (3, 11) else None'
	@echo "installing pyrmute-tasks into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing what the tests need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@
