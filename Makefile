# make demo    fine-tune a real model on real movie reviews
# make test    all tests
# make lint    ruff, mypy, import-linter
# make bench   the benchmarks of benchmarks/
# make docs    write docs/reference from the code, check the links
#
# Everything happens in .venv; stamp files keep repeated calls from installing again.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: demo test lint format bench bench-speed bench-quality bench-tuning docs constraints clean

demo: $(VENV)/.lorafit $(VENV)/.demo
	$(BIN)/lorafit demo

# Two processes of one thread each: tests are many and small.
test: $(VENV)/.dev $(VENV)/.demo $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev $(VENV)/.demo
	$(BIN)/python -m benchmarks

bench-speed: $(VENV)/.dev $(VENV)/.demo
	$(BIN)/python -m benchmarks.speed $(ARGS)

bench-quality: $(VENV)/.dev $(VENV)/.demo
	$(BIN)/python -m benchmarks.quality $(ARGS)

bench-tuning: $(VENV)/.dev $(VENV)/.demo
	$(PIP) --no-deps --requirement benchmarks/tuning/requirements.txt
	$(BIN)/python -m benchmarks.tuning grid --pair news --seeds 0 --out build/tuning $(ARGS)
	$(BIN)/python -m benchmarks.tuning side --side rise --pair news --seeds 0 --out build/tuning $(ARGS)
	$(BIN)/python -m benchmarks.tuning.report --results build/tuning

docs: $(VENV)/.dev
	$(BIN)/python docs/keywords.py
	$(BIN)/python docs/build.py

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

NATIVE := hatch_build.py $(wildcard src/lorafit/engine/native/*.cpp src/lorafit/engine/native/*.h)

$(VENV)/.lorafit: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/.created
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.lorafit
	$(PIP) --editable '.[test,dev]'
	touch $@

$(VENV)/.demo: requirements-demo.txt | $(VENV)/.created
	$(PIP) --no-deps --requirement requirements-demo.txt
	touch $@

$(VENV)/.test: requirements-test.txt | $(VENV)/.created
	$(PIP) --no-deps --requirement requirements-test.txt
	touch $@

# After an upgrade whose tests pass: note the versions they passed with.
constraints: $(VENV)/.dev
	head -n 1 constraints.txt > constraints.tmp
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' \
	  | grep -vxFf requirements-demo.txt >> constraints.tmp
	mv constraints.tmp constraints.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
