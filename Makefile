# The few verbs people need. `make demo` and `make test` do all their own set-up in .venv.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
LOCKED := --python $(BIN)/python --require-hashes --compile-bytecode --build-constraint requirements.lock \
	-r pyproject.toml -c requirements.lock
OWN := domain application infrastructure entrypoints

# Bytecode is written, whatever the environment says of it: three workers would each compile and rewrite all of the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-unit check prove bench faults mutants churn fuzz up lock system clean
COUNT ?= 1000
MINUTES ?= 10

demo: .venv/demo.stamp
	$(BIN)/headrace demo

up: .venv/demo.stamp
	$(BIN)/headrace up

test: .venv/test.stamp
	$(BIN)/pytest -n auto $(ARGS)

# What needs no server: the domain and the application, in seconds.
test-unit: .venv/test.stamp
	$(BIN)/pytest -q tests/unit $(ARGS)

check: .venv/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.architecture.sizes

prove: .venv/test.stamp
	$(BIN)/pytest -q -n auto -p tests.prove --prove $(ARGS)

bench: .venv/test.stamp
	$(BIN)/python -m benchmarks.run $(ARGS)

faults: .venv/test.stamp
	HEADRACE_TEST_RANDOM_PIPELINES=40 $(BIN)/pytest -q -n auto tests/faults/test_random_pipelines.py
	HEADRACE_TEST_MODELS=1 $(BIN)/pytest -q -n auto tests/models tests/ports/test_feature_expressions.py
	$(BIN)/python -m tests.faults.run --count $(COUNT) $(ARGS)

mutants: .venv/test.stamp
	$(BIN)/python -m tests.faults.mutants

churn: .venv/test.stamp
	$(BIN)/python -m tests.faults.churn --minutes $(MINUTES) $(ARGS)

fuzz: .venv/test.stamp
	HEADRACE_TEST_ALL_PAYLOADS=1 $(BIN)/pytest -q --timeout 1800 tests/security/test_payloads.py
	$(BIN)/python -m tests.security.fuzz --minutes $(MINUTES) $(ARGS)

lock: .venv/uv.stamp
	$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header --all-extras \
		--group test --group lint --group build pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header requirements-uv.in -o requirements-uv.txt

# Optional, from Debian's packages: clocks that are wrong, kills at system calls, a pooler and a check of alerts, in the suite.
system:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && ! { command -v strace && command -v faketime && command -v pgbouncer && command -v promtool; } >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends strace faketime pgbouncer prometheus >/dev/null; fi

clean:
	rm -rf .venv headrace-demo

.venv/uv.stamp: requirements-uv.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	touch $@

.venv/demo.stamp: .venv/uv.stamp requirements.lock pyproject.toml
	$(UV) pip install --quiet $(LOCKED) --extra demo --extra postgres --group build
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q $(OWN)
	touch $@

.venv/test.stamp: .venv/demo.stamp
	$(UV) pip install --quiet $(LOCKED) --all-extras --group test --group lint --group build
	touch $@
