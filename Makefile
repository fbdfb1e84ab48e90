# `make run` opens the console on the demo models; `make test` runs the tests. Both set up .venv first.
# PYTHON= names an interpreter, TORCH= a torch (see .ci/setup).

export PYTHON TORCH

.PHONY: run test check test-live test-console test-engine test-long lint pictures

run:
	@.ci/setup
	@exec .venv/bin/turbotui --demo

test:
	@.ci/setup test
	@echo "turbotui: three parts of the tests run side by side, for some minutes"
	@$(MAKE) --no-print-directory -j3 --output-sync=target test-live test-console test-engine

# All that must hold; lint begins once the first part of the tests has ended.
check:
	@.ci/setup test
	@$(MAKE) --no-print-directory -j3 --output-sync=target test-live test-console test-engine lint

# Three for two cores: the first two wait more than they compute, for engines and for a console to come to rest.
PYTEST = .venv/bin/python -m pytest -m "not long and not gpu"
LIVE = tests/daemon
CONSOLE = tests/tui
ENGINE = tests $(LIVE:%=--ignore=%) $(CONSOLE:%=--ignore=%)

test-live:
	$(PYTEST) $(LIVE) -o cache_dir=.pytest_cache/live

test-console:
	$(PYTEST) $(CONSOLE) -o cache_dir=.pytest_cache/console

test-engine:
	$(PYTEST) $(ENGINE) -o cache_dir=.pytest_cache/engine

test-long:
	@.ci/setup test
	.venv/bin/python -m pytest -m "long and not gpu" --timeout 1800

lint:
	@.ci/setup test
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy
	.venv/bin/python -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

pictures:
	@.ci/setup test
	.venv/bin/python -m tests.pictures docs
