# make demo       train, score and rank a small model here, from nothing
# make test       the test suite, less than 20 minutes on 2 cores
# make test-slow  the long proofs
# make notebook   run the tutorial again, which keeps its outputs in it
# make lint       ruff, mypy
# make board      check the project's own results, renew leaderboard/README.md
PYTHON ?= python3
VENV ?= .venv

INSTALLED = $(VENV)/.installed
RUN = $(VENV)/bin/hambench
DEMO ?= runs/demo
MINUTES ?= 4

.PHONY: demo test test-slow lint board notebook install clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"hambench needs Python 3.11 or later, {sys.executable} is {v.major}.{v.minor}; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt -e '.[dev,ase,embeddings,energies,pyscf,plots,slurm,smiles,trackers]'
	touch $@

demo: $(INSTALLED)
	OMP_NUM_THREADS=1 $(RUN) run task=water_mini model=helm_small seed=0 max_minutes=$(MINUTES) \
	  save_predictions=true root=$(DEMO)
	$(RUN) leaderboard $(DEMO) --out $(DEMO)/leaderboard

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(INSTALLED)
	$(VENV)/bin/python -m pytest -m slow

notebook: $(INSTALLED)
	$(VENV)/bin/python scripts/run_notebook.py docs/own_model.ipynb

lint: $(INSTALLED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/python scripts/link_tree.py
	MYPYPATH=build/typecheck $(VENV)/bin/mypy -p hambench

board: $(INSTALLED)
	$(RUN) submit check leaderboard/results
	$(RUN) leaderboard leaderboard/results --out build/board --format md
	cp build/board/leaderboard.md leaderboard/README.md

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
