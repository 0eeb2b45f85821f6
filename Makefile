# Everything from a fresh clone. `make help` lists the targets; `make env PYTHON=python3.12` chooses the interpreter.

PYTHON ?= python3
TEST_WORKERS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_LOG := .venv-install.log

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow test-simcuda coverage lint docs bench dist clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## Make .venv with the versions of constraints.txt (a few GB); does nothing when it is up to date

# The package itself is installed last and editable; its build tool comes from the constraints as well.
$(STAMP): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: PYTHON=$(PYTHON): no such interpreter" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: PYTHON=$(PYTHON): $$($(PYTHON) --version 2>&1), but Python 3.10 or newer is needed" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing the versions of constraints.txt into $(VENV): a few GB, one to ten minutes (log: $(PIP_LOG))"
	@$(PIP) install --quiet --constraint constraints.txt setuptools >$(PIP_LOG) 2>&1 || { cat $(PIP_LOG) >&2; exit 1; }
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[dev]' >>$(PIP_LOG) 2>&1 & pid=$$!; \
		trap 'kill $$pid; exit 130' INT TERM; $(show_progress); \
		wait $$pid || { cat $(PIP_LOG) >&2; echo "error: the installation failed; the lines above are $(PIP_LOG)" >&2; exit 1; }
	@touch $@

# While pip runs: one line that is rewritten on a terminal, a line every half minute elsewhere.
define show_progress
	seconds=0; while kill -0 $$pid 2>/dev/null; do \
		packages=$$(grep -cE '^(Collecting|Processing)' $(PIP_LOG)); \
		line="  $$packages packages found, $$seconds s"; \
		! grep -q '^Installing collected' $(PIP_LOG) || line="  writing $$packages packages to $(VENV), $$seconds s"; \
		if [ -t 1 ]; then printf '\r%s   ' "$$line"; elif [ $$((seconds % 30)) -eq 0 ]; then echo "$$line"; fi; \
		sleep 1; seconds=$$((seconds + 1)); \
	done; [ ! -t 1 ] || echo
endef

demo: ## Train and compare Faster R-CNN with and without coordinates: built-in digits, one seed (offline after make env)
	@echo "demo: Faster R-CNN on handwritten digits, with and without coordinates. Two trainings and tests take three to six"
	@echo "minutes on two CPU cores. `test -e $(STAMP) || echo 'Before them, the environment is installed: one to ten minutes.'`"
	@$(MAKE) --silent --no-print-directory env
	@$(BIN)/python -m coordconv_apps.compare detection --config detection/configs/quickstart.yaml --seeds 0 $(ARGS)

test: env ## Run the tests (ARGS="-k compare" picks some, TEST_WORKERS=0 uses one process)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) $(ARGS)

test-slow: env ## Run the long tests, which make test leaves out (up to 40 minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses $(TEST_WORKERS) $(ARGS)

# -k: the tests that have a device as argument, and those of tests/simcuda. CUDA's memory is filled with NaN before use.
test-simcuda: env ## Run the tests on a simulated CUDA device (needs gcc; 16 minutes on two cores)
	@reason=$$($(BIN)/python -c 'from tests.simcuda.build import missing; print(missing() or "")') || exit 1; \
	if test -n "$$reason"; then echo "skipped: $$reason"; exit 0; fi; \
	OMP_NUM_THREADS=1 SIM_CUDA_POISON=1 SIM_CUDA_RACES=warn $(BIN)/python -m tests.simcuda -m pytest -m '' -k cuda \
		--timeout 1800 --numprocesses $(TEST_WORKERS) tests/simcuda tests/nn tests/training tests/rl $(ARGS)

coverage: env ## Run the tests and report the lines that none of them runs (build/coverage/index.html)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --cov --cov-report=term --cov-report=html:build/coverage $(ARGS)

lint: env ## Check style, format and types
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

# NO_MKDOCS_2_WARNING: the theme's advertisement of its successor is no warning about these pages.
docs: env ## Build the documentation site into build/site, offline; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@! grep -rEl '<(script|link)[^>]*(src|href)="https?:' build/site --include='*.html' || \
		{ echo "error: these pages load a script or a style from the network" >&2; exit 1; }

bench: env ## Print the tables of the benchmarks
	$(BIN)/python benchmarks/layers.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/canvas.py
	$(BIN)/python benchmarks/coordinates.py
	$(BIN)/python benchmarks/generative.py
	$(BIN)/python benchmarks/classification.py
	$(BIN)/python benchmarks/rl.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/two_processes.py

dist: env ## Build the sdist, and the wheel from it, into dist/
	rm -rf dist
	$(BIN)/python -c "from setuptools import build_meta; build_meta.build_sdist('dist')"
	$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz

clean: ## Delete the environment and every cache; keep runs/ and data/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
