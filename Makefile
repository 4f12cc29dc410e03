# Needs python3 (3.11 or later, with venv) and make; everything else goes into .venv. A C compiler
# (cc, or CC=...) makes short launches on the CPU faster.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
# More extras for a target, e.g. EXTRAS=cuda13x on a machine with a GPU.
EXTRAS ?=
comma  := ,
LIBRARY := kernels/host/call_list.so
stamp   = $(VENV)/.stamp-$1$(if $(EXTRAS),$(comma)$(EXTRAS))

.PHONY: help venv demo test gpu-test bench docs fuzz stress onnx-suite onnx-suite-cuda lint format clean
.DELETE_ON_ERROR:

help:
	@echo "make demo      see it run (installs what it needs into $(VENV))"
	@echo "make test      lint, types and every test that needs no GPU (ci/check)"
	@echo "make gpu-test  the tests and benchmarks that need one (ci/gpu); EXTRAS=cuda13x brings CuPy"
	@echo "make bench     benchmarks on whatever there is; BENCH_ARGS=... are passed on"
	@echo "make docs      the documentation into build/docs, warnings as errors"
	@echo "make stress    2,000 random nets on the CPU, 200 on CUDA devices if there are (RUN=... goes before python)"
	@echo "make onnx-suite | onnx-suite-cuda   all of ONNX's backend suite; RUN=... goes before python"
	@echo "make fuzz      100,000 broken ONNX files (FUZZ_ARGS=... are passed on)"
	@echo "make lint | format | venv | clean"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# The stamp's name is the set of extras. Installed again when the project's metadata change.
$(VENV)/.stamp-%: pyproject.toml | $(BIN)/python
	$(PIP) install --editable ".[$*]"
	@touch $@

# Installing compiles it, but pip hides what that has to say; and it may be newer than the installation.
$(LIBRARY): kernels/host/call_list.c kernels/host/build.py | $(BIN)/python
	@$(BIN)/python kernels/host/build.py || true

$(VENV)/.models: requirements/models.txt requirements/cudnn.txt | $(BIN)/python
	$(PIP) install --no-deps -r requirements/models.txt -r requirements/cudnn.txt
	@touch $@

venv: $(call stamp,dev) $(VENV)/.models $(LIBRARY)

demo: $(call stamp,demo) $(LIBRARY)
	$(BIN)/python -m asyncnet_gpu demo $(DEMO_ARGS)

test: venv
	ci/check

gpu-test: $(call stamp,gpu-test) $(VENV)/.models $(LIBRARY)
	ci/gpu

bench: $(call stamp,gpu-test) $(VENV)/.models $(LIBRARY)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

docs: $(call stamp,docs)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

stress: venv
	ASYNCNET_RANDOM_NETS=2000 ASYNCNET_RANDOM_GPU_NETS=200 $(RUN) $(BIN)/python -m pytest \
	    tests/runs/test_random_nets.py tests/cuda/test_whole_nets.py
	ASYNCNET_NVRTC=all $(BIN)/python -m pytest tests/cuda/test_nvrtc.py
	ASYNCNET_CALL_EXAMPLES=40 $(BIN)/python -m pytest tests/native -o timeout=600

onnx-suite: venv
	$(BIN)/python -m pytest tests/onnx/test_backend_suite.py -m "not gpu"

onnx-suite-cuda: venv
	ASYNCNET_ONNX_SUITE=all $(RUN) $(BIN)/python -m pytest tests/onnx/test_backend_suite.py -m gpu \
	    -o timeout=600

fuzz: venv
	PYTHONPATH=tests $(BIN)/python -m helpers.onnx_fuzz --large --count 100000 $(FUZZ_ARGS)
	PYTHONPATH=tests $(BIN)/python -m helpers.onnx_fuzz --kind invented --count 100000 $(FUZZ_ARGS)

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python -m ci.operators_table

clean:
	rm -f $(LIBRARY)
	rm -rf $(VENV) build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
