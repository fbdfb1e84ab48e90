# `make run` opens the console on the demo models; `make test` runs the tests. Both set up .venv first.
# PYTHON= names an interpreter, TORCH= a torch (see .ci/setup).

export PYTHON TORCH

.PHONY: run test test-live test-console test-engine test-worker test-long lint pictures

run:
	@.ci/setup
	@exec .venv/bin/turbotui --demo

test:
	@.ci/setup test
	@echo "turbotui: the parts of the tests run side by side, for some minutes"
	@$(MAKE) --no-print-directory -j3 --output-sync=target $(PARTS)

# Three at a time for two cores: the first two wait more than they compute, for engines and for a console to come
# to rest, and the others take turns beside them. The worker's have a process of their own: in one that has run all
# others before they take nearly twice as long.
# What fails runs once more: a machine that is busy with the other parts may have been late for a test that looks
# at real terminals, processes and clocks; what is broken fails again.
LIVE = tests/daemon
CONSOLE = tests/tui
WORKER = tests/unit/worker
ENGINE = tests $(patsubst %,--ignore=%,$(LIVE) $(CONSOLE) $(WORKER))
PARTS = test-live test-console test-engine test-worker
PYTEST = .venv/bin/python -m pytest -m "not long and not gpu" -o cache_dir=.pytest_cache/$@

test-live: PART = $(LIVE)
test-console: PART = $(CONSOLE)
test-engine: PART = $(ENGINE)
test-worker: PART = $(WORKER)
$(PARTS):
	$(PYTEST) $(PART) || { [ $$? -eq 1 ] && $(PYTEST) $(PART) --last-failed --snapshot-warn-unused; }

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
