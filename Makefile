# Each target makes what it needs: the first call sets up .venv, later calls start at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALLER ?= uv

.PHONY: help setup run test test-browser lab notebooks site bench clean
help:
	@echo "make run        the last notebook, end to end; PARAMS='-p recipe gpu' changes its parameters"
	@echo "make setup      .venv with the pins, and nothing else"
	@echo "make test       all tests"
	@echo "make test-browser  the notebooks in JupyterLab, driven in Chromium; screenshots in runs/browser"
	@echo "make lab        JupyterLab on notebooks/; LAB='--no-browser --port 8889' passes options, LAB=--allow-root as root"
	@echo "make notebooks  rebuild notebooks from solutions/*.py"
	@echo "make site       executed lessons, diagrams, guide and API as a site: runs/site/html"
	@echo "make bench      reading, augmentation, models against Hugging Face and the published algorithm: ratios; half an hour"
	@echo "make clean      remove runs and what was rendered; .venv stays"
	@echo "make INSTALLER=pip ...  set up .venv without uv"

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $$($(PYTHON) --version) found: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV): a few minutes, once"
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/.half-made),--clear )$(VENV)
	$(BIN)/python solutions/install.py $(INSTALLER)
	@touch $@

setup: $(READY)
	@echo 'ready: activate it with `source .venv/bin/activate` (Windows: .venv\Scripts\activate), or open the notebooks with `make lab`'

run: $(READY)
	@$(BIN)/python solutions/run.py $(PARAMS)
	@# the classic template: the default one leaves alt text out
	$(BIN)/python -m jupyter nbconvert --to html --template classic --log-level WARN runs/10_full_run.ipynb
	@$(BIN)/python -m jupyter trust runs/10_full_run.ipynb >/dev/null  # or JupyterLab hides its players
	@echo "read it: runs/10_full_run.html, or runs/10_full_run.ipynb in JupyterLab (make lab)"

test: $(READY) # one test at a time: the next goes to the process that is free
	$(BIN)/python -m pytest -n 2 --maxschedchunk 1

test-browser: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/browser/requirements.txt
	VMAE_BROWSER=1 $(BIN)/python -m pytest tests/browser

lab: $(READY)
	$(BIN)/python -m jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks $(LAB)

notebooks: $(READY)
	$(BIN)/python solutions/build.py

site: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -e '.[site]'
	$(BIN)/python solutions/site/make_site.py

bench: $(READY)
	$(BIN)/python tests/bench/reading.py
	$(BIN)/python tests/bench/augment.py
	$(BIN)/python tests/bench/attention.py
	$(BIN)/python tests/bench/gather.py
	$(BIN)/python tests/bench/scaling.py
	$(BIN)/python tests/bench/models.py --memory
	$(BIN)/python tests/bench/charts.py

clean:
	rm -rf runs data/motion-* data/film data/stores
