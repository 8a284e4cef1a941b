# Everything from a fresh clone, with nothing but Python (3.10-3.13):
#
#   make demo        install what the main job needs into .venv; nano answers about a picture, a sign and a clip
#   make check       the inner ring: lint, types, format, unit tests and the engines' laws on tiny models (2 minutes)
#   make test        the middle ring, what CI runs: the inner one and every quick test (a quarter of an hour)
#   make test-slow   the outer ring: full depth, hostile files, Ray, faults, sanitizers, ARM (an hour)
#   make test-cuda   the tests that need an NVIDIA GPU
#   make docs        the site, with the reference, into build/site: strict, nothing fetched from elsewhere
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
# The tests of `make check`: they start no server, no browser, no compiler and no command.
UNIT := tests/test_config.py tests/test_floors.py tests/test_hub.py tests/test_where.py tests/generation tests/prompt \
	tests/checkpoint/test_checkpoint_dtypes.py tests/checkpoint/test_checkpoint_hostile.py \
	tests/checkpoint/test_checkpoint_layout.py tests/checkpoint/test_checkpoint_random.py \
	tests/checkpoint/test_checkpoint_reader.py \
	tests/families/test_foreign_checkpoints.py tests/families/test_tensor_table.py \
	tests/engines/test_engine_laws.py tests/engines/test_native_kernels.py tests/engines/test_native_arguments.py \
	tests/media/test_media_images.py tests/media/test_media_options.py tests/media/test_media_sampling.py \
	tests/media/test_media_sources.py tests/vlm/test_session.py tests/vlm/test_vlm_questions.py

INPUTS := pyproject.toml constraints.txt $(shell find native -name '*.cpp' -o -name '*.h' -o -name CMakeLists.txt)

.DEFAULT_GOAL := help
.PHONY: help demo check test lint unit test-slow test-cuda docs bench clean distclean
.DELETE_ON_ERROR:

# Tests start hundreds of Python processes: without kept bytecode each compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE
export NO_MKDOCS_2_WARNING := 1

help:
	@sed -n '3,11s/^#   //p' Makefile

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
# Bytecode is made of what is imported, when it is: to compile all 22,000 files takes longer than to download them.
# docling-core likewise: it wants a typer below 0.27 for a command of its own; what it needs beside stands in the test group.
$(VENV)/.test: $(VENV)/.run
	$(PIP) install --quiet --no-compile -c constraints.txt -e ".[torch,heic,train,serve,scale,ray-serve,ui,video,camera]" --group test --group docs
	$(PIP) install --quiet --no-compile -c constraints.txt --no-deps torchvision docling-core
	@touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt --group docs
	@touch $@

# --- what people run ----------------------------------------------------------------------------------------------------

demo: $(VENV)/.run
	$(PY) examples/demo.py
	@echo "The commands are in $(VENV)/bin: run 'source $(VENV)/bin/activate' once in each shell, then"
	@echo "  smolvlm ask examples/media/nano/sign.png \"What does the sign say?\""

check: lint
	$(PY) -m pytest -n $(TESTERS) --dist loadfile $(UNIT)

test: lint unit

lint: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check --quiet .
	find native -name "*.h" -o -name "*.cpp" | xargs $(VENV)/bin/clang-format --dry-run -Werror
	$(PY) -m mypy -n $(TESTERS)

unit: $(VENV)/.test
	$(PY) -m pytest -n $(TESTERS) --dist loadfile

test-slow: $(VENV)/.test
	$(PY) -m pytest -m "slow and not cuda and not network"

test-cuda: $(VENV)/.test
	$(PY) -m pytest -m cuda

docs: $(VENV)/.docs
	$(PY) -m mkdocs build
	@echo "The site is in build/site: open build/site/index.html"

bench: $(VENV)/.test
	$(PY) -m benchmarks.compare
	$(PY) -m benchmarks.long_video

clean:
	rm -rf build dist .work .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
