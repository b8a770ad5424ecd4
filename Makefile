# make install | quickstart | test | check | format | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUN := $(BIN)/python -m autoscale_exp

.PHONY: install quickstart test check format clean

install: $(VENV)/installed

# An interrupted install starts from an empty environment. A change of the two files updates the one that is there.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	-$(PIP) install --quiet --constraint constraints.txt --only-binary :all: uv
	$(call add,.)
	touch $@

# What formatting, lint, types and tests need beside that.
$(VENV)/installed_dev: $(VENV)/installed
	$(call add,'.[dev]')
	touch $@

# uv takes a fraction of pip's time; where it is not to be had or fails, pip does the same. uv reads none of pip's
# settings, which may alone say where the build of torch for CPUs lies, so they are handed on.
define add
	@echo "installing $(1) into $(VENV)"
	@settings=$$($(PIP) config list); \
	setting() { \
	  printf '%s\n' "$$settings" | sed -nE "s/\\\\n/ /g; s/^(:env:|global|install)\.$$1='(.*)'/\2/p" | head -n 1 | xargs; \
	}; \
	UV_FIND_LINKS="$${UV_FIND_LINKS-$$(setting find-links | tr ' ' ,)}" \
	UV_INDEX="$${UV_INDEX-$$(setting extra-index-url)}" \
	UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX-$$(setting index-url)}" \
	SSL_CERT_FILE="$${SSL_CERT_FILE-$$(setting cert)}" \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --index-strategy unsafe-best-match --compile-bytecode \
	  --constraints constraints.txt --build-constraints constraints.txt --editable $(1) || \
	PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(PIP) install --quiet --editable $(1)
endef

# Prepare, search, fit, train, report. Interrupted, it goes on where it was.
quickstart: install
	$(RUN).study experiment=quickstart

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/installed_dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary

format: $(VENV)/installed_dev
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

clean:
	rm -rf $(VENV) outputs/quickstart outputs/stores
