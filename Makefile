# Two commands on a fresh machine: make demo, make test.
# Needs python3 (3.11 or newer), pip and make; everything else goes into .venv.
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
# A venv made without pip is filled by the host's pip; one that has its own pip uses that.
PIP     = $(if $(wildcard $(VENV)/bin/pip),$(PY) -m pip,$(PYTHON) -m pip --python $(PY))
PIP_INSTALL = $(PIP) install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint check docs grafana pictures stack conformance seed-bug bench measure clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed; name one, for example: make test PYTHON=python3.12'; exit 1; }
	@if $(PYTHON) -m pip --version >/dev/null 2>&1; \
		then $(PYTHON) -m venv --without-pip $(VENV); \
		else $(PYTHON) -m venv $(VENV); fi

$(VENV)/.demo: pyproject.toml | $(PY)
	@echo 'Installing the demo into $(VENV) ...'
	@$(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(PY)
	@echo 'Installing the project and its tools into $(VENV) ...'
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml | $(PY)
	@echo 'Installing the project and its benchmarks into $(VENV) ...'
	@$(PIP_INSTALL) --editable '.[bench]'
	@touch $@

demo: $(VENV)/.demo  ## a real server, real traffic and the sidecar, until Ctrl-C (DEMO_SECONDS=20 to stop by itself)
	@$(PY) -m examples.demo

test: $(VENV)/.dev  ## run the tests
	$(PY) -m pytest

lint: $(VENV)/.dev  ## formatting, lint and types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

check: lint test  ## lint, then test

docs: $(VENV)/.dev  ## write the generated tables of the documentation
	$(PY) -m docs.generate

grafana: $(VENV)/.dev  ## write dashboards, alerts and their runbook (RUNBOOK_BASE=... where you publish it)
	$(PY) -m grafana.mixin

pictures: $(VENV)/.dev  ## draw the dashboards into docs/images (Debian: prometheus npm chromium pngquant)
	$(PY) -m grafana.pictures

stack: $(VENV)/.dev  ## Prometheus, Alertmanager and VictoriaMetrics: from a stuck worker to a pager
	$(PY) -m pytest -m stack

# An environment of its own for each Python, so that results of several can stand side by side.
bench:  ## measure beside the peers; writes docs/benchmarks.md (25 minutes; ARGS="--effort quick")
	@$(MAKE) --no-print-directory measure PYTHON='$(PYTHON)' \
		VENV=.bench/python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

measure: $(VENV)/.bench
	$(PY) -m benchmarks $(ARGS)

conformance: $(VENV)/.dev  ## every server against every scenario; writes docs/conformance.md (7 minutes)
	$(PY) -m ws_lifecycle_metrics.conformance.matrix docs/conformance.md

seed-bug: $(VENV)/.dev  ## the bug that began it: Strawberry and Channels under old and new Granian
	$(PY) -m examples.seed_bug

clean:  ## remove what make created
	rm -rf $(VENV) .bench build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
