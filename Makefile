# make demo        fit, check, compare and save models of a real recording; everything lands in demo/
# make test        the fast tests (doctests and the README's blocks among them); make test-slow: the slow ones
# make test-versions  a selection of them with the newest and the oldest versions of what the package needs (.ci/versions)
# make lint types  ruff and mypy; make format rewrites the files in place
# make fuzz        random cases, many of them: make fuzz FACTOR=20 SEED=0; `make test` runs a few
# make docs        the documentation site, with its notebooks, into build/site; start at build/site/index.html
# make bench       speed and quality against rivals
# make examples    every example in its smoke mode; make gallery: the gallery's in full, into examples/results

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# two processes of one thread each: the tests are many small steps, on which a second thread only waits; a file stays in
# one process, so that what it fits once serves all its tests, and the longest come first (tests/conftest.py); compiled
# files are kept, since every process compiles all else
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: install demo test test-slow test-versions fuzz lint format types docs examples gallery bench clean
.DEFAULT_GOAL := test

# The stamp is newer than what it was made from, or the environment is brought up to date (never built twice).
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet -c constraints.txt -e '.[examples,dev,docs]'
	touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(PY) examples/grasshopper/demo.py --out demo

test: $(INSTALLED)
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

# with the newest and the oldest versions that pyproject.toml allows, in environments of their own
test-versions:
	.ci/versions

# Cases are FACTOR times those of `make test`, others for every SEED; hypothesis shrinks what fails.
FACTOR ?= 20
SEED ?= 0
fuzz: $(INSTALLED)
	OMP_NUM_THREADS=1 FUZZ=$(FACTOR) $(PY) -m pytest tests/fuzz --hypothesis-seed=$(SEED)

lint: $(INSTALLED)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: $(INSTALLED)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

types: $(INSTALLED)
	$(PY) -m mypy

# Warnings are errors, links of pages to pages and anchors among them. Links to other sites are not asked for, since a
# build must pass without a network. Notebooks run, two processes of one thread each.
docs: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PY) -m sphinx -c docs -j 2 -W --keep-going -q . build/site

# Every example is a directory with a demo.py that takes --out and, for a run of seconds, --smoke.
examples: $(INSTALLED)
	set -e; for script in examples/*/demo.py; do \
		echo "$$script --smoke"; \
		$(PY) "$$script" --smoke --out "build/smoke/$$(basename "$$(dirname "$$script")")"; \
	done
	set -e; for script in examples/workflows/*/demo.py; do \
		echo "$$script --smoke"; \
		$(PY) "$$script" --smoke --out "build/smoke/$$(basename "$$(dirname "$$script")")"; \
	done
	set -e; for script in examples/workflows/*/*.sh; do \
		echo "$$script --smoke"; \
		PATH="$(CURDIR)/$(VENV)/bin:$$PATH" "$$script" --smoke --out "build/smoke/$$(basename "$$(dirname "$$script")")"; \
	done

# Goes on where an earlier run stopped, and runs again what has changed since.
gallery: $(INSTALLED)
	$(PY) examples/gallery.py

bench: $(INSTALLED)
	set -e; for script in benchmarks/*.py; do echo "$$script"; $(PY) "$$script"; done

clean:
	rm -rf build docs/reference/generated dist demo runs .pytest_cache .mypy_cache .ruff_cache
