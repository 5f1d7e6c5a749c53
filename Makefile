# `make` on its own lists the targets.

# The first of these that is a Python 3.11; PYTHON=... overrides.
PYTHON ?= $(or $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done),python3)
UV ?= uv
# A folder of wheels that `make lock` may use beside the package index, for the CPU build of torch.
FIND_LINKS ?=

VENV := .venv
BIN := $(VENV)/bin
# Written last, so that an interrupted set-up is done again.
READY := $(VENV)/.ready
# A copy of the lock that was installed to its end. While it is the same, only thresher itself is installed anew.
INSTALLED := $(VENV)/.lock
LOCK := requirements/cpu.lock
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
RUFF_PATHS := flows filters schemas thresher tests benchmarks docs

.DEFAULT_GOAL := help
.PHONY: help venv demo test check fix schemas docs lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(READY) ## build .venv from the lock, or reuse it
	@echo "thresher: $(VENV) is ready"

demo: $(READY) ## run the demo recipe
	@$(BIN)/thresher run data/recipes/demo.yaml

# The slow tests of a file stay together, for they share an engine, a server or a cluster.
test: $(READY) ## run the tests; ARGS="..." goes to pytest
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(BIN)/python -m pytest -m "not slow"
	@$(BIN)/python -m pytest -m slow -n 2 --dist=loadfile
endif

check: $(READY) ## lint, format, types, import layers, generated files, rules of the tree
	$(BIN)/ruff check $(RUFF_PATHS)
	$(BIN)/ruff format --check $(RUFF_PATHS)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/thresher schema --check
	$(BIN)/python docs/make_reference.py --check
	$(BIN)/python docs/make_licences.py --check
	$(BIN)/python -m pytest -q -n0 tests/test_house.py tests/test_docs_names.py

fix: $(READY) ## let ruff fix and format the code
	$(BIN)/ruff check --fix $(RUFF_PATHS)
	$(BIN)/ruff format $(RUFF_PATHS)

schemas: $(READY) ## write the generated JSON schemas, and the generated parts of docs/
	$(BIN)/thresher schema --write
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_licences.py

# The site loads nothing from the network. Only this installation of its tools does, once.
DOCS := .venv-docs
DOCS_READY := $(DOCS)/.ready

$(DOCS_READY): requirements/docs.txt
	@$(CHECK_PYTHON)
	@'$(PYTHON)' -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -m pip -qq --disable-pip-version-check --no-input install --require-hashes --no-deps -r requirements/docs.txt
	@touch $@

docs: $(DOCS_READY) ## build the documentation as a site in site/
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict
	@echo "thresher: open site/index.html"

define CHECK_PYTHON
py='$(PYTHON)'; \
found=$$("$$py" -c 'import platform; print(platform.python_version())' 2>/dev/null) || found='no Python that runs'; \
case "$$found" in 3.11.*) ;; *) \
	echo "thresher: found $$found ($$py), but Python 3.11 is wanted; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1;; \
esac; \
"$$py" -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "thresher: $$py ($$found) has no ensurepip, so it cannot make a .venv; install it (Debian, Ubuntu: python3.11-venv)" >&2; exit 1; }
endef

# pycosat ships as C source only. Without a compiler the rest still installs; only reasoning_gym does not import.
define CHOOSE_PACKAGES
cp $(LOCK) $(VENV)/wanted.txt; \
if ! { command -v "$${CC:-cc}" || command -v gcc; } >/dev/null 2>&1 || ! $(BIN)/python -c \
	'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; then \
	echo "thresher: no C compiler or no Python headers, so pycosat is left out and reasoning-gym will not import"; \
	awk '/^[^ #]/ {left_out = /^pycosat==/} !left_out' $(LOCK) >$(VENV)/wanted.txt; \
fi
endef

define PIP_HINT
{ echo "thresher: pip failed, see its message above." >&2; \
  echo "If it found no torch 2.13.0+cpu: the CPU build is not on the standard index. Give pip PyTorch's own index for" >&2; \
  echo "CPU wheels (PIP_EXTRA_INDEX_URL=...) or a folder that holds the wheel (PIP_FIND_LINKS=...) and run make again." >&2; \
  exit 1; }
endef

# The pinned pip comes first: it installs the rest in half the time that the pip of Python 3.11 takes.
# Compiling all 28,000 files takes over a minute. Importing what is used compiles just those, and shows that they import.
IMPORT_ENGINE := import vllm.v1.engine.async_llm, vllm.v1.engine.core, vllm.v1.worker.cpu_worker, transformers.models.llama.modeling_llama; from vllm import LLM
IMPORT_REST := import prefect.server.api.server, datasets, accelerate, gguf, math_verify, re2, pytest, hypothesis
IMPORT_EXTRA := import importlib.util as u; u.find_spec("pycosat") and __import__("reasoning_gym")

$(READY): $(LOCK) pyproject.toml
	@$(CHECK_PYTHON)
	@if [ -L $(VENV) ]; then echo "thresher: $(VENV) is a link, and making it again would empty what it points to; remove the link" >&2; exit 1; fi
	@if ! cmp -s $(LOCK) $(INSTALLED); then set -e; \
		echo "thresher: making $(VENV) with $$('$(PYTHON)' -V)"; \
		'$(PYTHON)' -m venv --clear $(VENV); \
		$(CHOOSE_PACKAGES); \
		echo "thresher: installing $$(grep -c == $(VENV)/wanted.txt) pinned packages (3 GB, some minutes)"; \
		awk '/^[^ #]/ {wanted = /^pip==/} wanted' $(LOCK) >$(VENV)/pip.txt; \
		$(PIP) install --require-hashes --no-deps -r $(VENV)/pip.txt && \
		$(PIP) install --require-hashes --no-compile --no-deps -r $(VENV)/wanted.txt || $(PIP_HINT); \
		echo "thresher: importing them once"; \
		unset PYTHONDONTWRITEBYTECODE; \
		$(BIN)/python -c '$(IMPORT_ENGINE)' >$(VENV)/import.log 2>&1 & engine=$$!; \
		$(BIN)/python -c '$(IMPORT_REST); $(IMPORT_EXTRA)' >$(VENV)/import2.log 2>&1 || { cat $(VENV)/import2.log >&2; exit 1; }; \
		wait $$engine || { cat $(VENV)/import.log >&2; exit 1; }; \
		cp $(LOCK) $(INSTALLED); \
	fi
	@echo "thresher: installing thresher itself"
	@$(PIP) install --no-deps --no-build-isolation -e .
	@echo "thresher: compiling the kernels"
	@$(BIN)/python -m thresher.dedupe.compile_kernels
	@touch $@

# uv resolves and writes the hashes of all files of a version; pip installs, and takes no file with another. The header is ours
# because uv's own would name the local folder.
LOCKED := pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 \
	--python-platform x86_64-manylinux_2_28

lock: ## write requirements/cpu.lock and requirements/docs.txt anew (needs uv)
	@command -v $(UV) >/dev/null || { echo "thresher: make lock needs uv; name one with: make lock UV=/path/to/uv" >&2; exit 1; }
	@cp $(LOCK) $(LOCK).new 2>/dev/null || true
	$(UV) $(LOCKED) --extra cpu --extra reasoning --extra maths --extra dev --excludes requirements/excludes.txt \
		$(if $(FIND_LINKS),--find-links $(FIND_LINKS)) $(ARGS) pyproject.toml requirements/cpu.in -o $(LOCK).new >/dev/null
	@{ echo "# Every package of the CPU set-up (Linux x86-64, Python 3.11). Installed as it stands, nothing is resolved."; \
		echo "# Written by: make lock (FIND_LINKS=folder with the CPU wheel of torch; ARGS=--upgrade for newer versions)"; \
		cat $(LOCK).new; } >$(LOCK).out && mv $(LOCK).out $(LOCK) && rm $(LOCK).new
	@cp requirements/docs.txt requirements/docs.new
	$(UV) $(LOCKED) $(ARGS) requirements/docs.in -o requirements/docs.new >/dev/null
	@{ echo "# Every package that builds the site. Written by: make lock"; cat requirements/docs.new; } >requirements/docs.out
	@mv requirements/docs.out requirements/docs.txt && rm requirements/docs.new
