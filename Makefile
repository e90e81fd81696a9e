# Every target makes the virtual environment it needs. Python 3.11 is the only thing to have.
.DEFAULT_GOAL := help
.PHONY: help gen

VENV := .venv
BIN := $(VENV)/bin

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

gen: ## generate gen/ from proto/
	scripts/gen.sh
