# Everything here runs in .venv, which `make` sets up on first use.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin
# Test processes; each takes up to 2 GB of memory.
WORKERS := 2

.DEFAULT_GOAL := help
.PHONY: help demo textbook test test-all check test-faults gpu fuzz test-lowest audit lint typecheck typecheck-others format dist clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "make %-12s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "wavegen needs Python 3.11 or newer; set PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## train on the shipped recordings for minutes, write new audio and its picture into demo/
	rm -rf demo
	$(RUN)/wavegen train tests/data/speech --config demo --run demo/run
	$(RUN)/wavegen evaluate demo/run --summary
	$(RUN)/wavegen generate demo/run -o demo/new.wav --seconds 5 --seed 1 --best-of 4
	$(RUN)/wavegen inspect demo/new.wav --plot demo/new.png
	@$(RUN)/python -c 'import soundfile, sys, wavegen; model = wavegen.load("demo/run"); \
		clip = soundfile.read("demo/new.wav", dtype="float32")[0]; \
		sys.exit("; ".join(map(str, model.faults(clip))) or 0)'
	@echo
	@echo 'new sound:      demo/new.wav'
	@echo 'its picture:    demo/new.png'
	@echo 'the model:      demo/run'
	@echo 'next: listen;   then train on your own:   $(RUN)/wavegen train my_recordings/'
	@echo '                or train this one longer: $(RUN)/wavegen train --run demo/run --resume --steps 10000'

textbook: $(INSTALLED)  ## train the textbook's forecasters on two cores in minutes, print their errors (SEEDS=3)
	rm -rf runs/textbook
	$(RUN)/python tests/programs/compare_forecasters.py runs/textbook $(or $(SEEDS),3)

test: check  ## lint, types, and tests, in minutes
	$(RUN)/pytest -m 'not slow' -n $(WORKERS) --dist worksteal

test-all: test typecheck-others  ## the same, then the long grids and soaks
	$(RUN)/pytest -m slow -n $(WORKERS) --dist worksteal

check: lint typecheck  ## lint and types

test-faults: $(INSTALLED)  ## fault injection, the long form: hours
	WAVEGEN_FAULTS=long WAVEGEN_KILLS=100 $(RUN)/pytest tests/faults tests/training/test_kills.py

gpu: $(INSTALLED)  ## on a machine with a CUDA device: tests, speeds and a table, in nine minutes
	$(RUN)/python tests/gpu/check.py

fuzz: $(INSTALLED)  ## mutate recordings and configurations for MINUTES=60
	WAVEGEN_FUZZ_MINUTES=$(or $(MINUTES),60) $(RUN)/pytest -s tests/faults/test_fuzz.py

test-lowest:  ## the fast tests with the lowest versions of all dependencies, in .venv-lowest
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --editable '.[dev]' --constraint .ci/lowest.txt
	.venv-lowest/bin/pytest -m 'not slow' -W ignore::DeprecationWarning

audit: $(INSTALLED)  ## known vulnerabilities of the locked versions, asked of PyPI
	$(RUN)/python -m pip install --quiet pip-audit
	$(RUN)/pip-audit --strict --requirement .ci/requirements.lock --no-deps --disable-pip

lint: $(INSTALLED)  ## ruff
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

typecheck: $(INSTALLED)  ## mypy, strict
	$(RUN)/mypy

typecheck-others: $(INSTALLED)  ## the same as on Windows and macOS
	$(RUN)/mypy --platform win32
	$(RUN)/mypy --platform darwin

format: $(INSTALLED)  ## let ruff format the code
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

# The wheel is tried in an environment of its own, which borrows all packages of .venv but the checkout: a .pth file
# adds a folder to the path, and is not read for the .pth files in there, by which the checkout is installed.
ALONE := build/alone
WHEEL_RUN := env -u PYTHONPATH WAVEGEN_CACHE=cache bin/wavegen

dist: $(INSTALLED)  ## build wheel and sdist, check them, and train and generate with the installed wheel
	rm -rf dist $(ALONE)
	$(RUN)/python -m build --outdir dist
	$(RUN)/twine check --strict dist/*
	$(RUN)/python -m venv $(ALONE)
	$(ALONE)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps dist/*.whl
	$(RUN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(ALONE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
	cd $(ALONE) && env -u PYTHONPATH bin/python -c 'import pathlib, sys, wavegen; \
		home = pathlib.Path(wavegen.__file__).parent; print(home); \
		assert home.is_relative_to(sys.prefix) and (home / "py.typed").is_file()'
	cd $(ALONE) && $(WHEEL_RUN) --version && $(WHEEL_RUN) config
	cd $(ALONE) && $(WHEEL_RUN) generate voice --seconds 1 -o first.wav
	cd $(ALONE) && $(WHEEL_RUN) train "$(CURDIR)/tests/data/speech" --config demo --run run --steps 5
	cd $(ALONE) && $(WHEEL_RUN) export run -o model.safetensors && $(WHEEL_RUN) generate model.safetensors --seconds 1
	@echo && ls -l dist

clean:  ## remove the environment, the demo and all caches of tools
	rm -rf $(VENV) .venv-lowest demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
