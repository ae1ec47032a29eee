# Fresh machine, two commands: `make demo` and `make test`. Needs Python 3.11 or later, and nothing of the system's.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EVENTS ?=

# Where it is set, each process compiles our modules anew: 3 s of the 5 s that importing the application took.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test bench lint serve lock clean

install: $(VENV)/.installed-run  ## Install the service

$(VENV)/.uv: requirements/uv.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	touch $@

$(VENV)/.installed-run: $(VENV)/.uv requirements/run.txt pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/run.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/build.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-run requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	touch $@

$(VENV)-litellm/.installed: $(VENV)/.uv requirements/litellm.txt  # of its own: the proxy pins other versions
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-litellm
	$(BIN)/uv pip install --quiet --python $(VENV)-litellm/bin/python --require-hashes -r requirements/litellm.txt
	touch $@

demo: install  ## Everything with a simulated gateway; EVENTS=file.ndjson plays a file instead
	$(BIN)/jauge demo $(if $(EVENTS),--events $(EVENTS))

serve: install  ## The API and the pages
	$(BIN)/jauge serve

test: $(VENV)/.installed-dev $(VENV)-litellm/.installed lint  ## Lint, types, architecture and every test
	$(BIN)/python -m tests.pages.browser install
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-dev  ## Format, lint, types, who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.installed-dev  ## Speed against limits measured in the same run
	$(BIN)/python -m tests.bench

lock: $(VENV)/.uv  ## Pin every dependency with its hashes
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --upgrade -o requirements/dev.txt
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -c requirements/dev.txt -o requirements/run.txt
	echo hatchling | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -c requirements/dev.txt -o requirements/build.txt
	echo uv | $(BIN)/uv pip compile - --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/uv.txt
	$(BIN)/uv pip compile requirements/litellm.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --upgrade -o requirements/litellm.txt

clean:  ## Remove what was installed; data in .jauge/ stays
	rm -rf $(VENV) $(VENV)-litellm .browser
