# Needs only Python 3.11 or later and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
# Five for two CPUs: many of the tests wait for servers. Those that share a fleet stay together
# (tests/conftest.py says which these are), and the longest groups begin first.
TEST_PROCESSES ?= $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) * 5 + 1) / 2 )))
IN_PARALLEL := -n $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-slow coverage test-matrix differential chaos job-log check check-wheel hooks bench clean

demo: $(VENV)/.runtime
	@$(BIN)/python examples/demo.py

# The processes that tests start, hundreds of them, compile nothing again, whatever the environment
# says: empty, this variable counts as not set.
test test-slow coverage chaos: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow"

# What takes real time or many processes: CONTRIBUTING.md says what that is.
test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest $(IN_PARALLEL) -m slow

# Lines and branches that the unit and contract tests reach, also in processes that they start.
# The minimum is in pyproject.toml.
coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered tests/unit tests/contract

# The unit and contract tests with the lowest and the highest versions that are declared, on each
# Python at hand: some two minutes each on two cores. MATRIX="--python 3.12 --versions lowest"
test-matrix: $(VENV)/.dev
	$(BIN)/python -m tests.matrix $(MATRIX)

# The long form of tests/differential: 10,000 cases, some five minutes on two cores.
differential: $(VENV)/.dev
	DIFFERENTIAL_CASES=10000 $(BIN)/python -m pytest -n auto --timeout 1200 tests/differential

# The long form of tests/chaos: some 25 minutes on two cores. CHAOS="--schedules 10" and the like;
# CHAOS="--service" harms the coordinators of submitted jobs at 20 random moments instead;
# CHAOS="--flights --published FLIGHTS.csv.zip" kills the year of flights instead, 30 times each way.
chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.schedules $(CHAOS)

# The long forms of the state machines of a job's log and of its steering: 3,000 schedules each,
# some five minutes.
job-log: $(VENV)/.dev
	JOB_LOG_SCHEDULES=3000 $(BIN)/python -m pytest tests/unit/test_job_log_machine.py tests/unit/test_job_steering_machine.py

check: $(VENV)/.dev check-wheel
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A user's project and all public types, as mypy and pyright see them in the wheel: half a minute.
check-wheel: $(VENV)/.dev
	$(BIN)/python -m tests.consumer

# Let git run the checks before each commit.
hooks: $(VENV)/.dev
	$(BIN)/pre-commit install

# About an hour on two cores. BENCH=--quick takes some, and its figures mean nothing;
# BENCH="--only by-reference" measures these rows alone: benchmarks/README.md has their names.
bench: $(BENCH_VENV)/.made
	$(BENCH_VENV)/bin/python -m benchmarks $(BENCH)

clean:
	rm -rf $(VENV) .venv-matrix .cache demo-output build dist

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

$(BENCH_VENV)/.made: pyproject.toml benchmarks/requirements.txt
	@echo "installing what the benchmarks compare with into $(BENCH_VENV)"
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable . --requirement benchmarks/requirements.txt
	@touch $@
