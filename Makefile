# The chores. `make up` and `make test` need nothing but Python 3.11+ and this file: each makes its own environment.
PYTHON ?= python3
ARGS ?=
RUN := .venv/bin
DEV := .venv-dev/bin


.PHONY: up test test-torch check fix sim contracts clean

up: .venv/ready
	$(RUN)/atoll up --home .atoll $(ARGS)

test: .venv-dev/ready
	$(DEV)/python -m pytest $(ARGS)

test-torch: .venv-dev/torch  # tracing models with PyTorch, which only their developers need
	$(DEV)/python -m pytest tests/graph $(ARGS)

check: .venv-dev/ready
	$(DEV)/ruff check src tests bench
	$(DEV)/ruff format --check src tests bench
	$(DEV)/mypy
	$(DEV)/lint-imports

fix: .venv-dev/ready
	$(DEV)/ruff check --fix src tests bench
	$(DEV)/ruff format src tests bench

sim: .venv-dev/ready
	$(DEV)/python -m atoll.sim examples/scenarios.toml $(ARGS)

contracts:
	cd src/atoll/contracts/build && npm ci --silent --no-fund --no-audit && node build.mjs

clean:
	rm -rf .venv .venv-dev .atoll

.venv/ready: pyproject.toml
	@$(PYTHON) -m venv .venv
	@echo "Setting up (about half a minute, once)."
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -e '.[devnet]'
	touch $@

.venv-dev/ready: pyproject.toml
	@$(PYTHON) -m venv .venv-dev
	@echo "Setting up for the tests (about a minute, once)."
	$(DEV)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@# An oracle for the aggregation rules; its own requirements (torch, torchvision) are not needed for that.
	$(DEV)/python -m pip install --quiet --disable-pip-version-check --no-deps byzfl==0.0.11
	touch $@

.venv-dev/torch: .venv-dev/ready
	$(DEV)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,torch]'
	touch $@
