# Everything from a fresh clone, with nothing but Python (3.10-3.13):
#
#   make demo        install what the main job needs into .venv; nano answers about a picture, a sign and a clip
#   make test        install everything, then lint, types and the quick tests
#   make test-slow   the tests that take minutes          make test-cuda   those that need an NVIDIA GPU
#   make bench       side by side with transformers; one hour of video by seeking
#   make clean       remove caches and build outputs      make distclean   the virtual environment too
#
# Another Python: make test PYTHON=python3.12. Another place: VENV=.venv-3.12. pip's own settings (index, proxy) apply.
# Tests run in TESTERS=2 processes, each with its share of the cores.
# A second run installs nothing, unless pyproject.toml, constraints.txt or the C++ sources in native/ changed.

PYTHON ?= python3
VENV ?= .venv
TESTERS ?= 2
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
INPUTS := pyproject.toml constraints.txt $(shell find native -name '*.cpp' -o -name '*.h' -o -name CMakeLists.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit test-slow test-cuda bench clean distclean
.DELETE_ON_ERROR:

help:
	@sed -n '3,7s/^#   //p' Makefile

# --- the environment: one stamp file a stage, so that the demo needs no test tools -------------------------------------

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2])' || \
		{ echo "smolvlm needs Python 3.10 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
		{ echo "no virtual environment: install your system's venv package (python3-venv)" >&2; exit 1; }
	$(PIP) install --quiet --upgrade "pip>=25.1"  # the first that knows --group
	@touch $@

# Builds the native engine where a C++ compiler is; without one, what runs is torch.
$(VENV)/.run: $(VENV)/.made $(INPUTS)
	$(PIP) install --quiet -c constraints.txt -e .
	@$(PY) -c 'import smolvlm.engines._native' 2>/dev/null || \
		{ echo "no C++ compiler: installing torch (g++ 10 or newer gives the faster native engine)" >&2; \
		$(PIP) install --quiet -c constraints.txt -e ".[torch]"; }
	@touch $@

# torchvision without its dependencies: it would ask for the CUDA build of torch. Why the tests want it: tests/oracle.py.
# docling-core likewise: it wants a typer below 0.27 for a command of its own; what it needs beside stands in the test group.
$(VENV)/.test: $(VENV)/.run
	$(PIP) install --quiet -c constraints.txt -e ".[torch,heic,train,serve,scale,ray-serve,ui]" --group test
	$(PIP) install --quiet -c constraints.txt --no-deps torchvision docling-core
	@touch $@

# --- what people run ----------------------------------------------------------------------------------------------------

demo: $(VENV)/.run
	$(PY) examples/demo.py
	@echo "The commands are in $(VENV)/bin: run 'source $(VENV)/bin/activate' once in each shell, then"
	@echo "  smolvlm ask examples/media/nano/sign.png \"What does the sign say?\""

test: lint unit

lint: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check --quiet .
	$(PY) -m mypy -n $(TESTERS)

unit: $(VENV)/.test
	$(PY) -m pytest -n $(TESTERS) --dist loadfile

test-slow: $(VENV)/.test
	$(PY) -m pytest -m "slow and not cuda and not network"

test-cuda: $(VENV)/.test
	$(PY) -m pytest -m cuda

bench: $(VENV)/.test
	$(PY) -m benchmarks.compare
	$(PY) -m benchmarks.long_video

clean:
	rm -rf build dist .work .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
