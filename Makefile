# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Thin on purpose: each target calls a program that can be called without make as well.

PYTHON ?= python3
LAB = $(PYTHON) tests/lab/lab.py

.DEFAULT_GOAL := help
.PHONY: help dev lab lab-down lab-env test compat fuzz demo bench lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: ## make the checkout usable as a collection
	@$(PYTHON) tools/bootstrap.py

lab: dev ## a real engine, registry and BuildKit for this checkout
	@$(LAB) up

lab-down: ## stop all of it; what was downloaded and built stays in the cache
	@$(LAB) down

lab-env: dev ## print the lab's variables, for a shell's eval
	@$(LAB) env

test: dev ## all tests, against the lab
	@$(PYTHON) tests/run.py

compat: dev ## the tests of the client against each BuildKit of the supported range
	@$(PYTHON) tests/compat.py

fuzz: dev ## random contexts against the CLI, random input to all that is parsed: BUILDX_FUZZ_EXAMPLES of each
	@$(PYTHON) tests/fuzz/run.py

demo: dev ## the story of a builder, on an engine that runs or on the lab's
	@$(PYTHON) tools/demo.py

bench: dev ## measure against the reference CLI
	@$(PYTHON) tests/bench/run.py

lint: dev ## formatter, linter and type checker
	@$(PYTHON) tests/run.py lint

clean: ## stop the lab and remove what this checkout made
	@$(LAB) destroy
	rm -rf tests/output .pytest_cache .mypy_cache .ruff_cache .hypothesis
