# make demo | test | check | bench | docs | install. Each one sets .venv up first; a second call starts at once.
VENV   ?= .venv
PY     ?= python3
EXTRAS ?= dev
BIN    := $(VENV)/bin
# Local wheels, where an environment offers them; empty elsewhere.
FIND   := $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))
DEMO   ?= demo-output

.PHONY: install demo demo-quick test check format bench docs snippets constraints clean
.DEFAULT_GOAL := help

help:  ## Show what can be made.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: $(VENV)/.done  ## Create .venv and install gridloom into it with pinned versions.

$(VENV)/.done: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (about 1.5 GB; a minute or two, download aside)"
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python $(FIND) -c constraints.txt -e ".[$(EXTRAS)]" -e examples/custom_system
	@$(BIN)/uv pip install -q --python $(BIN)/python $(FIND) --no-deps mlfinpy==0.1.2  # read for its table of trades alone
	@touch $@

demo: install  ## Train on real data: encode the globe, find summits, fill the sea; evaluate, and show the reports.
	@$(BIN)/python -m gridloom demo --output $(DEMO)

demo-quick: install  ## The same way in two minutes (what CI runs).
	@$(BIN)/python -m gridloom demo --output $(DEMO)-quick --quick

test: install  ## Run the tests.
	@$(BIN)/python -m pytest -n 2

check: install  ## Lints, format, types, import layers, links in the docs.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_links.py

format: install  ## Let ruff mend what it can.
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

snippets: install  ## Run the README's Python and the examples.
	$(BIN)/python tools/run_snippets.py

bench: install  ## Run every benchmark quickly; without --quick by hand, see docs/benchmarks.md.
	@for script in benchmarks/bench_*.py; do $(BIN)/python $$script --quick || exit 1; done

docs: $(VENV)/.docs  ## Build the documentation site into site/.
	@$(BIN)/zensical build

$(VENV)/.docs: $(VENV)/.done
	@$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e ".[docs]"
	@touch $@

constraints: install  ## Resolve constraints.txt anew: every extra, every supported Python, no hosts, no local versions.
	@rm -f constraints.txt
	@echo "torch==2.13.0" > .torch-pin.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --all-extras --no-header --no-annotate -c .torch-pin.txt pyproject.toml -o constraints.txt
	@rm -f .torch-pin.txt

clean:  ## Remove what was made here (keeps .venv).
	rm -rf $(DEMO) $(DEMO)-quick site .mypy_cache .ruff_cache .import_linter_cache
