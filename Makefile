# make quickstart   from nothing to a table of results, see README.md
# make test         the test suite
# Both create the virtual environment $(VENV) and install into it, once; what
# only the tests need comes with `make test`, `make lint` and `make format`.

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python -m
INSTALL = $(RUN) pip install --disable-pip-version-check
SOURCES = latentnmt experiments tests setup.py

.PHONY: quickstart embedded grammar test lint format clean

quickstart embedded grammar: $(VENV)/installed
	$(VENV)/bin/latentnmt study --recipe=$@

test: $(VENV)/installed-test
	$(RUN) pytest -n auto --dist loadfile

lint: $(VENV)/installed-test
	$(RUN) ruff check $(SOURCES)
	$(RUN) ruff format --check $(SOURCES)

format: $(VENV)/installed-test
	$(RUN) ruff check --fix $(SOURCES)
	$(RUN) ruff format $(SOURCES)

clean:
	rm -rf $(VENV) *.egg-info build dist .pytest_cache .ruff_cache

# A report draws its figures where it finds matplotlib.
$(VENV)/installed: setup.py pyproject.toml | $(VENV)/bin/python
	$(INSTALL) -e '.[plots]'
	@touch $@

# The test extra has the plots too.
$(VENV)/installed-test: setup.py pyproject.toml | $(VENV)/bin/python
	$(INSTALL) -e '.[test]'
	@touch $(VENV)/installed $@

$(VENV)/bin/python:
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
