# Nothing else to learn: setup, demo, test, unit, lint, bench.

PYTHON := .venv/bin/python

.PHONY: setup demo test root unit lint bench clean

setup:  ## system packages, virtual environment, images, engine bundles (the only one that downloads)
	@.ci/setup

demo:  ## a container on a VM that is made in front of you
	@.ci/setup demo
	@.ci/demo

test: root setup lint  ## everything, real VMs included
	$(PYTHON) -m pytest -n 2 tests/e2e  # an emulated processor keeps one of ours busy
	$(PYTHON) -m pytest -n 4 tests/integration tests/unit  # which wait for half of their time

root:
	@[ "$$(id -u)" = 0 ] || { echo "Tests on real VMs make network namespaces of their own," \
	  "which needs root. Type: sudo make test" >&2; exit 1; }

unit:  ## the quick part, for every save
	$(PYTHON) -m pytest -q -n 2 tests/unit

lint:
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	shellcheck .ci/run .ci/setup .ci/demo

bench: setup  ## ratios within one run, into benchmarks/RESULTS.md; fails on no time
	$(PYTHON) -m benchmarks

clean:
	rm -rf .venv build dist *.egg-info
