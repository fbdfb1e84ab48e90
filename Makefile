# `make run` opens the console on the demo models; `make test` runs the tests. Both set up .venv first.
# PYTHON= names an interpreter, TORCH= a torch (see .ci/setup).

export PYTHON TORCH

.PHONY: run test test-long lint pictures

run:
	@.ci/setup
	@exec .venv/bin/turbotui --demo

test:
	@.ci/setup test
	.venv/bin/python -m pytest -m "not long and not gpu"

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
