# make quickstart   from nothing to a table of results, see README.md
# make test         the test suite
# Both create the virtual environment $(VENV) and install into it, once.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
SOURCES = latentnmt experiments tests setup.py

.PHONY: quickstart embedded grammar test lint format clean

quickstart embedded grammar: $(VENV)/installed
	$(RUN) experiments.study --recipe=$@

test: $(VENV)/installed
	$(RUN) pytest -n auto --dist loadfile

lint: $(VENV)/installed
	$(RUN) ruff check $(SOURCES)
	$(RUN) ruff format --check $(SOURCES)

format: $(VENV)/installed
	$(RUN) ruff check --fix $(SOURCES)
	$(RUN) ruff format $(SOURCES)

clean:
	rm -rf $(VENV) *.egg-info build dist .pytest_cache .ruff_cache

$(VENV)/installed: setup.py
	@for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	      2>/dev/null; then \
	    echo "Installing into $(VENV), with $$($$python --version)."; \
	    exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "error: no Python 3.11 or newer found ($(PYTHON) is" \
	  "$$($(PYTHON) --version 2>&1)); run make PYTHON=/path/to/python3." >&2; \
	exit 1
	$(RUN) pip install --disable-pip-version-check -e '.[test]'
	@touch $@
