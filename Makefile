# Every target makes the virtual environment it needs; Python 3.11 is the only thing to have.
.DEFAULT_GOAL := help
.PHONY: help up demo test check format lint types imports protos fresh gen bench soak screenshot lock release-protos image-steps clean

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
RELEASED := proto/released.binpb
WORKERS ?= 2

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

up: $(INSTALLED) ## bring a mesh up on this machine, until Ctrl-C
	$(BIN)/whimbrel up

demo: $(INSTALLED) ## two people talk through a mesh that is being killed; nothing is lost
	$(BIN)/whimbrel demo

test: $(INSTALLED) ## run the tests
	$(BIN)/pytest -n $(WORKERS) -m 'not soak'

check: format lint types imports protos fresh ## all checks that run no test

format: $(INSTALLED)
	$(BIN)/ruff format --check .

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports --no-logo

protos: $(INSTALLED)
	$(BIN)/buf lint
	$(BIN)/buf breaking --against $(RELEASED)

fresh: $(INSTALLED)
	scripts/check_fresh.sh

gen: $(INSTALLED) ## generate gen/, docs/api.md, docs/metrics.md, the rules and dashboards of the chart
	scripts/gen.sh
	$(BIN)/python scripts/docs.py
	$(BIN)/python scripts/observability.py

bench: $(INSTALLED) ## measure, print a table, write .whimbrel/bench.json
	$(BIN)/whimbrel bench --telemetry --tls

soak: $(INSTALLED) ## run the tests that take minutes to hours
	$(BIN)/pytest -m soak --timeout 0

screenshot: $(INSTALLED) ## draw the picture of the terminal client in docs/screen.svg again
	$(BIN)/whimbrel chat --as alice --screenshot docs/screen.svg

release-protos: $(INSTALLED) ## declare the protos released: from now on they may only grow
	$(BIN)/buf build --exclude-source-info -o $(RELEASED)

lock: $(INSTALLED) ## resolve pyproject.toml into requirements.lock again
	scripts/lock.sh

image-steps: ## do what the image's build does, without a container, and ask each service for its settings
	prefix=$$(mktemp -d) && trap 'rm -rf "$$prefix"' EXIT && \
	scripts/image.sh requirements $$prefix && scripts/image.sh project $$prefix && \
	for service in svc_*; do (cd / && env -i $$prefix/bin/python -m $$service settings >/dev/null) || exit 1; done

clean: ## remove what was built, not .whimbrel
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(INSTALLED): requirements.lock pyproject.toml
	scripts/install.sh $(PYTHON) $(VENV)
