# The first command anyone needs is `make demo`; it sets everything up. `make` lists the rest.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV ?= .venv
RECIPE ?= storybook
RUN ?= runs/latest
ARGS ?=
# Of the images: the base by digest, where they are pushed to, and `cpu` for the smaller build of torch.
BASE_IMAGE ?=
REGISTRY ?=
TAG ?=
PUSH ?=
TORCH ?=
# The distribution's docker has BuildKit; another one that comes first may lack it.
ENGINE ?= $(firstword $(wildcard /usr/bin/docker) docker)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# A run starts a process for each step: what each would compile again is kept beside the source.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup demo chat test chart-test check format bench pack ui lock image-locks images e2e-docker clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[36mmake %-11s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml tools/install.py
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)))' || \
	  { echo 'error: visavis needs Python 3.11 to 3.13, and PYTHON="$(PYTHON)" is not one'; \
	    echo '  fix: install python3.11, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11'; exit 2; } >&2
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || \
	  { echo 'error: no virtual environment could be made'; \
	    echo '  fix: install the venv module of this Python (Debian: apt-get install python3-venv)'; exit 2; } >&2
	$(BIN)/python tools/install.py requirements.lock
	@touch $@

setup: $(STAMP) ## Make .venv with the locked requirements (runs again only when the lock changes)

demo: setup ## Train a model from clips to registered version, on this machine (RECIPE=smoke for a quick one)
	$(BIN)/visavis run --recipe $(RECIPE) $(ARGS)

chat: setup ## Open the chat page on the demo's champion or challenger (ARGS='--port 8001' and the like)
	$(BIN)/visavis serve --browser $(ARGS)

test: setup ## Run every test (ARGS='-m "not slow"' for the quick ones)
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

chart-test: setup ## Render the Helm chart over a matrix of values, and check all that comes out
	$(BIN)/pytest tests/charts $(ARGS)

check: setup ## Lint, formatting, types, import floors, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell

format: setup ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Time each step of the last run (RUN=runs/ID for another)
	$(BIN)/python benchmarks/demo.py --run $(RUN)

pack: setup ## Train the pack `storybook` from nothing (hours; it resumes)
	$(BIN)/visavis pack build storybook $(ARGS)

ui: setup ## Open MLflow on the runs
	$(BIN)/visavis ui

lock: setup ## Resolve requirements.lock and docs/licences.md from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-annotate \
	  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' --output-file requirements.lock
	$(BIN)/python tools/licences.py

image-locks: setup ## Lock what the container images hold, with hashes (TORCH=cpu for the smaller torch)
	$(BIN)/python tools/image_locks.py $(TORCH)

images: ## Build the container images (BASE_IMAGE=name@sha256:... REGISTRY=... PUSH=1 TORCH=cpu ENGINE=podman)
	@"$(PYTHON)" tools/images.py --engine "$(ENGINE)" --base "$(BASE_IMAGE)" --registry "$(REGISTRY)" \
	  --tag "$(TAG)" --torch "$(TORCH)" $(if $(PUSH),--push) $(ARGS)

e2e-docker: setup ## Build the images and run the pipeline and the service in them (needs Docker)
	@base="$(BASE_IMAGE)"; base="$${base:-$$(tools/docker_here.sh --check)}"; \
	  BASE_IMAGE="$$base" ENGINE="$(ENGINE)" TORCH="$(TORCH)" $(BIN)/pytest tests/e2e/docker $(ARGS)

clean: ## Remove caches and build outputs (runs/ and .venv stay)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
	find src tests tools components pipelines benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
