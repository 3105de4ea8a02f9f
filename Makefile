PYTHON ?= python3
MINUTES ?= 10
BIN := .venv/bin
SETUP := .venv/.complete

.DEFAULT_GOAL := help
.PHONY: help setup train sample test test-documents test-slow mutants chaos performance gpu-check docs lint format check-digits clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

setup: $(SETUP) ## Make .venv and install the package with its development tools (Python 3.11 or later)

$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or later: make PYTHON=/path/to/python3.11 setup")'
	@echo "1/3 making .venv"
	@$(PYTHON) -m venv .venv
	@.ci/install_torch $(BIN)/python $$(grep -oE 'torch(vision)?>=[0-9.]+' pyproject.toml | sort -u)
	@echo "3/3 installing the other libraries and the development tools: about 1 GB; 1 to 3 minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

train: setup ## Train on 8 x 8 digits, minutes on a CPU; ARGS='schedule=cosine' changes settings
	$(BIN)/python -m diffusion_lit.train $(ARGS)

sample: setup ## Draw from the newest run; ARGS='guidance=2' changes settings
	$(BIN)/python -m diffusion_lit.sample ckpt=$$(ls -dt outputs/train/*/checkpoints/last.ckpt | head -n 1) $(ARGS)

check-digits: setup ## Measure the newest digits run: do its samples read as their labels, are they copies?
	$(BIN)/python benchmark/digits.py $$(ls -dt outputs/train/*/checkpoints/last.ckpt | head -n 1)

test: setup ## Run the tests (minutes)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test-documents: setup ## Run every command and Python block of the documents with short settings (minutes)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow tests/test_documents_run.py

test-slow: setup ## Run the tests that train a model for minutes, and those that install the wheel afresh
	$(BIN)/python -m pytest -m slow

mutants: setup ## Look for MINUTES (10) for changes that no test notices; ARGS='src/diffusion_lit/sampler' says where
	$(BIN)/python -m tests.mutants --minutes $(MINUTES) $(ARGS)

chaos: setup ## Kill runs at random for MINUTES (10), resume them, and see that nothing is lost; ARGS='--seed 1'
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(ARGS)

performance: setup ## Measure speed and memory against diffusers, and write docs/performance.md; ARGS='--quick' tries it
	$(BIN)/python benchmark/performance.py docs/performance.md $(ARGS)

gpu-check: setup ## Check a GPU in under 8 minutes, and write docs/gpu.md; ARGS='--device cpu --quick' tries it without one
	$(BIN)/python benchmark/gpu_check.py docs/gpu.md $(ARGS)

docs: .venv/.docs ## Build the documentation's site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

.venv/.docs: pyproject.toml | $(SETUP)
	@echo "installing what builds the documentation: about 30 MB"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

lint: setup ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what tools left behind; runs in outputs/ stay
	rm -rf .mypy_cache .pytest_cache .ruff_cache build dist
	find src tests benchmark -name __pycache__ -type d -exec rm -rf {} +
