# `make demo` shows what cutk does, `make test` runs everything that has to hold. Both set up .venv first, which takes
# a while: torch is large. Where there is no GPU, `make TORCH_INDEX=URL demo` takes its much smaller build for CPUs from
# the package index that PyTorch's installation page names.
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test soak lint format bench evidence docs outputs clean

demo: $(VENV)/.installed
	$(BIN)/cutk bench --unlearner ssd
	@echo 'To go on, let your shell find cutk, and set another method beside this one:'
	@echo '  . $(BIN)/activate'
	@echo '  cutk bench --unlearner ssd --unlearner rewod'

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadgroup

# For hours, if you like: SOAK_SECONDS is how long inputs are made up, and SOAK_SEED which moments are drawn.
SOAK_SECONDS ?= 300
SOAK_SEED ?= 1

soak: $(VENV)/.soaking
	mkdir -p .cache/fuzz
	cd .cache && OMP_NUM_THREADS=1 ../$(BIN)/python ../tests/inputs/fuzz.py fuzz -max_total_time=$(SOAK_SECONDS) -timeout=60
	OMP_NUM_THREADS=1 CUTK_SOAK=$(SOAK_SEED) $(BIN)/python -m pytest tests/resilience tests/inputs tests/test_dask.py

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.developing
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/peers.py

# From the records in benchmarks/results; `python benchmarks/evidence.py collect RUNS FOLDER` brings new ones.
evidence: $(VENV)/.developing
	$(BIN)/python benchmarks/evidence.py rebuild
	for each in robustness ablation; do \
	  $(BIN)/python benchmarks/$$each.py --of benchmarks/results/$$each --keep benchmarks/results/$$each || exit 1; \
	done

docs: $(VENV)/.documenting
	$(BIN)/zensical build --clean --strict

outputs: $(VENV)/.developing
	$(BIN)/python docs/outputs.py

clean:
	rm -rf $(VENV) build dist site .cache .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What is fetched is shown as it comes. $(1): what to install besides cutk itself.
define install
	@echo 'Installing cutk$(if $(1), with $(1),) into $(VENV). Torch with its CUDA libraries is about 3 GB to fetch and'
	@echo '6 GB on the disk; without a GPU, stop here and give TORCH_INDEX=URL, the index of its build for CPUs, a fifth of that or less.'
	$(if $(TORCH_INDEX),$(BIN)/pip install --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/pip install --editable '.$(if $(1),[$(1)],)'
	touch $@
endef

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call install,)

$(VENV)/.developing: pyproject.toml | $(BIN)/python
	$(call install,dev)
	touch $(VENV)/.installed

$(VENV)/.documenting: pyproject.toml | $(BIN)/python
	$(call install,docs)
	touch $(VENV)/.installed

$(VENV)/.soaking: pyproject.toml | $(BIN)/python
	$(call install,soak)
	touch $(VENV)/.installed $(VENV)/.developing
