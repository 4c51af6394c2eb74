# make demo    fine-tune a real model on real movie reviews
# make test    all tests
# make lint    ruff, mypy, import-linter
# make bench   the benchmarks of benchmarks/
# make docs    write docs/reference from the code, check the links
# make soak    processes killed, disks full, inputs damaged: docs/explanation/reliability.md
# make audit   known vulnerabilities of the tested set (ADVISORIES=FOLDER: from a local database)
# make wheel   the wheel, built twice and compared; into dist/
#
# make test-lowest, make test-newest: the tests with the lowest versions that pyproject.toml
# allows, and with the newest there are; each in an environment of its own.
#
# Everything happens in .venv; stamp files keep repeated calls from installing again.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
fresh = $(1)/bin/python -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: demo test test-lowest test-newest lint format bench bench-speed bench-quality bench-tuning \
  soak docs audit wheel constraints clean

demo: $(VENV)/.lorafit $(VENV)/.demo
	$(BIN)/lorafit demo

# Two processes of one thread each: tests are many and small.
test: $(VENV)/.dev $(VENV)/.demo $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

# What differs between versions: reading, settings, tasks, models, files, training, the commands.
ACROSS := tests/test_config.py tests/settings tests/data tests/tasks tests/model tests/run \
  tests/export tests/training tests/adapt tests/methods tests/cli tests/test_api.py

# Warnings of old versions are none of ours; the newest ones warn of what will break.
test-lowest: $(VENV)-lowest/.installed
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -n 2 -W default $(or $(ARGS),$(ACROSS))

test-newest: $(VENV)-newest/.installed
	OMP_NUM_THREADS=1 $(VENV)-newest/bin/python -m pytest -n 2 $(or $(ARGS),$(ACROSS))

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

soak: $(VENV)/.dev
	$(BIN)/python -m benchmarks.soak $(ARGS)

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

$(VENV)-lowest/.installed: pyproject.toml tests/lowest.py $(NATIVE)
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) tests/lowest.py test > $(VENV)-lowest/constraints.txt
	$(call fresh,$(VENV)-lowest) --constraint $(VENV)-lowest/constraints.txt --editable '.[test]'
	$(call fresh,$(VENV)-lowest) --no-deps -r requirements-demo.txt -r requirements-test.txt
	touch $@

$(VENV)-newest/.installed: pyproject.toml $(NATIVE)
	$(PYTHON) -m venv $(VENV)-newest
	$(call fresh,$(VENV)-newest) --upgrade --upgrade-strategy eager --editable '.[test]'
	$(call fresh,$(VENV)-newest) --no-deps -r requirements-demo.txt -r requirements-test.txt
	touch $@

$(VENV)-audit/.installed:
	$(PYTHON) -m venv $(VENV)-audit
	$(call fresh,$(VENV)-audit) pip-audit pyyaml
	touch $@

# ADVISORIES: a copy of PyPA's advisory database (pypa/advisory-database on GitHub). Without it the
# service that pip-audit asks has to be reachable.
audit: $(VENV)-audit/.installed
	$(VENV)-audit/bin/python tests/audit.py $(ADVISORIES)

wheel: $(VENV)/.created
	$(BIN)/python tests/wheels.py dist $(ARGS)

# After an upgrade whose tests pass: note the versions they passed with.
constraints: $(VENV)/.dev
	head -n 1 constraints.txt > constraints.tmp
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' \
	  | grep -vxFf requirements-demo.txt >> constraints.tmp
	mv constraints.tmp constraints.txt

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest $(VENV)-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis
