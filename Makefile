# `make run` opens the console on the demo models; `make test` runs the tests. Both set up .venv first.
# PYTHON= names an interpreter, TORCH= a torch (see .ci/setup).

export PYTHON TORCH

.PHONY: run test test-long lint

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
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
