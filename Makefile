# make report [STUDY=smoke]   the report of a study (default: params.yaml, the demo)
# make figures                pull data, encoders and scores from the DVC remote, then the report
# make test | test-slow       the tests: under 25 minutes with the installation | the whole demo and many kills
# make lint | format          what `make test` checks first | fix what can be fixed automatically
# make schema                 write workflow/schemas/params.schema.json, for editors, after a change in study.py
# make tfds                   add TFDS and TensorFlow to the environment, to prepare the real VTAB (2 GB; STUDY=vtab and the tests do it)
# make lock                   solve requirements.lock and requirements-tfds.lock again after a change in pyproject.toml

PYTHON ?= python3
VENV ?= .venv
STUDY ?=
GPUS ?= 4
UV := uv==0.13.9
PARAMS := $(if $(STUDY),studies/$(STUDY).yaml,params.yaml)
MADE := $(VENV)/.made
TFDS := $(VENV)/.tfds

export PATH := $(abspath $(VENV))/bin:$(PATH)
# The code of this folder, also when the environment is shared with another clone.
export PYTHONPATH := $(CURDIR)/src
export PYTHONUTF8 := 1
# uv and pip keep caches in the home; where it cannot be written, here.
ifneq ($(shell c="$${XDG_CACHE_HOME:-$$HOME/.cache}"; test -z "$$HOME" || { mkdir -p "$$c" && test -w "$$c"; } 2>/dev/null && echo yes),yes)
export XDG_CACHE_HOME := $(CURDIR)/scratch/cache
endif

# What is installed is known by the content of the files that say it, since file times say when a folder was cloned.
digest = $(shell cat $(1) 2>/dev/null | sha256sum | cut -c1-16)
PACKAGES := $(call digest,requirements.lock pyproject.toml)
TFDS_PACKAGES := $(call digest,requirements.lock requirements-tfds.lock)
ifneq ($(shell cat "$(MADE)" 2>/dev/null),$(PACKAGES))
.PHONY: $(MADE)
endif
ifneq ($(shell cat "$(TFDS)" 2>/dev/null),$(TFDS_PACKAGES))
.PHONY: $(TFDS)
endif

.PHONY: report figures test test-slow tfds lint format schema lock

report: $(MADE) $(if $(filter vtab,$(STUDY)),$(TFDS))
	@vtabflow check $(PARAMS)
	@snakemake --cores all --resources gpu=$(GPUS) --config params=$(PARAMS) --quiet rules host || { vtabflow status $(PARAMS); exit 1; }
	@vtabflow status $(PARAMS)

figures: $(MADE)
	dvc pull
	$(MAKE) report

test: lint $(TFDS)
	python -m pytest -q -n 2 --dist worksteal -m "not slow" --durations=15

test-slow: $(MADE) $(TFDS)
	python -m pytest -q -m slow --durations=15

tfds: $(TFDS)

lint: $(MADE)
	ruff check .
	ruff format --check .
	mypy
	mypy --strict -p vtabflow.planning -p vtabflow.contracts
	snakefmt --check workflow
	vtabflow code status
	snakemake --lint

format: $(MADE)
	ruff check --fix .
	ruff format .
	snakefmt workflow

schema: $(MADE)
	python -c 'import json; from vtabflow.planning.study import Study; print(json.dumps(Study.model_json_schema(), indent=1))' > workflow/schemas/params.schema.json

lock:
	uv pip compile --universal --generate-hashes --extra dev --extra extras --python-version 3.11 --no-header pyproject.toml -o requirements.lock
	uv pip compile --universal --generate-hashes --extra tfds --constraint requirements.lock --python-version 3.11 --no-header pyproject.toml -o requirements-tfds.lock

# An environment that is shared keeps the package of the clone that made it: here PYTHONPATH says whose code runs.
$(MADE):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"error: Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}; name another: make PYTHON=python3.12 ...")'
	@test -e $(MADE) && echo "$(VENV): installing the packages of requirements.lock" || echo "making $(VENV): about 6 GB, a few minutes"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	@uv pip install --quiet --python $(VENV)/bin/python --require-hashes -r requirements.lock
	@case "$(abspath $(VENV))" in "$(CURDIR)"/*) false ;; *) test -x $(VENV)/bin/vtabflow ;; esac || \
	  uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@echo $(PACKAGES) > $(MADE)

$(TFDS): | $(MADE)
	@uv pip install --quiet --python $(VENV)/bin/python --require-hashes -r requirements-tfds.lock
	@echo $(TFDS_PACKAGES) > $(TFDS)
