# `make run` opens the console on the demo models; `make test` runs the tests. Both set up .venv first.
# PYTHON= names an interpreter, TORCH= a torch (see .ci/setup).

export PYTHON TORCH

.PHONY: run test test-console test-engine test-long lint pictures

run:
	@.ci/setup
	@exec .venv/bin/turbotui --demo

test:
	@.ci/setup test
	@echo "turbotui: the tests of the console and of the engine run side by side, for some minutes"
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-console test-engine

# Both wait more than they compute. What fails runs once more: a machine that is busy with the other suite may
# have been late for a test that looks at real terminals, processes and clocks; what is broken fails again.
PYTEST = .venv/bin/python -m pytest -m "not long and not gpu"

# The console's waits the most, so that it has what computes beside it: each takes about ten minutes.
CONSOLE = tests/tui tests/leaks tests/specification
ENGINE = tests $(CONSOLE:%=--ignore=%)

test-console:
	$(PYTEST) $(CONSOLE) -o cache_dir=.pytest_cache/console || { [ $$? -eq 1 ] && \
		$(PYTEST) $(CONSOLE) -o cache_dir=.pytest_cache/console --last-failed --snapshot-warn-unused; }

test-engine:
	$(PYTEST) $(ENGINE) -o cache_dir=.pytest_cache/engine || { [ $$? -eq 1 ] && \
		$(PYTEST) $(ENGINE) -o cache_dir=.pytest_cache/engine --last-failed --snapshot-warn-unused; }

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
