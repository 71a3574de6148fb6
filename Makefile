# Every target sets up what it needs: a virtual environment in $(VENV), with the extension built in place.

VENV ?= .venv
BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
PYTHON := $(VENV)/bin/python
SET_UP := $(VENV)/.set-up
BUILT := build/.extension
SOURCES := $(shell find csrc -type f 2>/dev/null)
SANITIZED := build/sanitized
SANITIZE_TESTS ?= $(wildcard tests/test_cpu*.py tests/test_ops_*.py) tests/test_low_precision.py tests/test_predictive.py

.PHONY: setup demo test test-all lint sanitize sanitize-threads bench clean

setup: $(BUILT)

# A stale build directory can leak an old extension into the new install.
$(SET_UP): pyproject.toml setup.py constraints/cpu.txt
	rm -rf build
	test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): 1.3 GB, most of it PyTorch; a few minutes the first time"
	$(PYTHON) -m pip install --disable-pip-version-check -q -c constraints/cpu.txt -e '.[dev]'
	touch $@

# The install has just compiled the extension; afterwards only what changed is compiled again.
$(BUILT): $(SET_UP) $(SOURCES)
	mkdir -p build
	$(PYTHON) setup.py -q build_ext --inplace
	touch $@

demo: setup
	$(PYTHON) -m pixelfast.cli.demo

# One process per core, one thread each: on a busy machine torch's threads wait for each other for long.
PYTEST = OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n auto

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/test_layering.py

# The sanitized package lives in a directory of its own and is found before the installed one.
SANITIZER = LD_PRELOAD="$$(g++ -print-file-name=libasan.so):$$(g++ -print-file-name=libubsan.so):$$(g++ -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0 UBSAN_OPTIONS=print_stacktrace=1 \
	PYTHONSAFEPATH=1 PYTHONPATH=$(SANITIZED) $(PYTHON)

sanitize: setup
	PIXELFAST_SANITIZE=address,undefined $(PYTHON) setup.py -q build --build-base build/sanitize --build-lib $(SANITIZED)
	$(SANITIZER) -c 'import torch, pixelfast._C as built; assert "$(SANITIZED)" in built.__file__, built.__file__'
	$(SANITIZER) -m pytest -q -m "not slow" $(SANITIZE_TESTS)

# Threads are checked apart from memory: the two sanitizers exclude each other. OpenMP is not instrumented: the
# engine then runs on the standard library's threads.
THREAD_SANITIZED := build/thread-sanitized
THREAD_SANITIZER = LD_PRELOAD="$$(g++ -print-file-name=libtsan.so):$$(g++ -print-file-name=libstdc++.so)" \
	TSAN_OPTIONS=ignore_noninstrumented_modules=1:exitcode=66 OMP_NUM_THREADS=2 \
	PYTHONSAFEPATH=1 PYTHONPATH=$(THREAD_SANITIZED) $(PYTHON)

sanitize-threads: setup
	PIXELFAST_SANITIZE=thread $(PYTHON) setup.py -q build --build-base build/sanitize-threads --build-lib $(THREAD_SANITIZED)
	$(THREAD_SANITIZER) -m pytest -q -m "not slow" -k "thread or sharing or ahead or batch" $(SANITIZE_TESTS)

bench: setup
	$(PYTHON) -m pixelfast bench gated-pixelcnn-mnist --batch-sizes 1,16,64 --dtypes float32,bfloat16 --profile
	$(PYTHON) -m pixelfast bench pixelcnnpp --batch-sizes 1,16,64 --dtypes float32,bfloat16 --profile
	$(PYTHON) -m pytest -q benchmarks

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f pixelfast/_C*.so
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
