# make install | quickstart | test | check | format | clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m autoscale_exp

.PHONY: install quickstart test check format clean

install: $(VENV)/installed

# torch comes first and alone: pip then takes the build for CPUs that constraints.txt pins.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

# The main job, command by command as in the README. Interrupted, it goes on where it was.
quickstart: install
	$(RUN).prepare data=environment
	$(RUN).train experiment=quickstart
	$(RUN).fit experiment=quickstart_fit
	$(RUN).fit experiment=quickstart_fit law=autoscale output_dir=outputs/quickstart/autoscale
	$(RUN).train experiment=quickstart_targets
	$(RUN).report search=outputs/quickstart autoscale=outputs/quickstart/autoscale

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: install
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary

format: install
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

clean:
	rm -rf $(VENV) outputs/quickstart outputs/stores
