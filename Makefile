# labelmint's commands. `make` or `make help` lists them.
#
# Needed on Debian and Ubuntu: apt install make python3 python3-venv

# --- choices, each may be given on the command line ---------------------------------------------------------------------

# Interpreter, 3.11 to 3.13; by default the first one found.
PYTHON ?= $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$candidate && break; done)
# Where pip finds another build of torch, for example https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# More arguments for pip, pytest, the demo and the server.
PIP_ARGS ?=
PYTEST_ARGS ?=
DEMO_ARGS ?=
SERVE_ARGS ?=
BENCH_ARGS ?=
# Processes that share the test suite, a file at a time.
TEST_PROCESSES ?= 2
# Python of an environment with nvidia-pytriton: with it, `make bench` measures the transport too.
TRITON_PYTHON ?=
DEMO_OUT ?= out/demo
# Environments: of the demo and the server (no torch), of the tests (everything), of the stub generator, and of tests and
# benchmarks on a GPU.
DEMO_VENV ?= .venv-demo
DEV_VENV ?= .venv-dev
PROTOS_VENV ?= .venv-protos
GPU_VENV ?= .venv-gpu

# ------------------------------------------------------------------------------------------------------------------------

LOCK := requirements/tested.txt
APT := apt install make python3 python3-venv
# Modules are compiled when they are first imported; most of torch never is, and compiling all takes longer than the rest.
PIP_INSTALL = -m pip install --disable-pip-version-check --quiet --no-compile --constraint $(LOCK) $(PIP_ARGS)
DEMO_STAMP := $(DEMO_VENV)/.labelmint-installed
DEV_STAMP := $(DEV_VENV)/.labelmint-installed
GPU_STAMP := $(GPU_VENV)/.labelmint-installed
PROTOS_STAMP := $(PROTOS_VENV)/.labelmint-installed
PROTO_FILES := $(sort $(wildcard protos/labelmint/v1/*.proto))

.DEFAULT_GOAL := help
.PHONY: help demo serve dev test test-gpu test-thorough test-faults soak lint types contracts pytest fuzz fuzz-requests fuzz-manifests \
	fuzz-checkpoints load bench bench-gpu kernel kernel-gpu chart-schema protos \
	check-protos clean python-is-there
.DELETE_ON_ERROR:

help: ## List the commands.
	@echo "Commands:"
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Choices, such as make test TORCH_INDEX=https://download.pytorch.org/whl/cpu, stand on top of the Makefile."

demo: $(DEMO_STAMP) ## Serve the embedded model, stream 256 labelled samples into out/demo/, draw a contact sheet.
	$(DEMO_VENV)/bin/labelmint demo --out $(DEMO_OUT) $(DEMO_ARGS)

serve: $(DEMO_STAMP) ## Serve the embedded model until Ctrl-C.
	$(DEMO_VENV)/bin/labelmint-serve $(SERVE_ARGS)

dev: $(DEV_STAMP) ## Install everything into .venv-dev: labelmint-export, tests and benchmarks.

test: lint types contracts pytest ## Install everything, then run lint, types, import contracts and the test suite.

lint: $(DEV_STAMP) ## Check style and format.
	$(DEV_VENV)/bin/ruff check
	$(DEV_VENV)/bin/ruff format --check

types: $(DEV_STAMP) ## Check types.
	$(DEV_VENV)/bin/mypy

contracts: $(DEV_STAMP) ## Check which package imports which.
	$(DEV_VENV)/bin/lint-imports

pytest: $(DEV_STAMP) ## Run the test suite alone.
	$(DEV_VENV)/bin/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-thorough: $(DEV_STAMP) ## Run the cases that `make test` leaves out because others show the same (minutes).
	$(DEV_VENV)/bin/python -m pytest -m thorough $(PYTEST_ARGS)

test-faults: $(DEV_STAMP) ## Kill a server 30 times under eight readers, flood it, and the other faults (8 minutes).
	$(DEV_VENV)/bin/python -m pytest -m "not fuzz" tests/faults tests/service/test_engine_faults.py \
		tests/service/test_repository_churn.py --kills 30 --fault-s 8 \
		$(PYTEST_ARGS)

soak: $(DEV_STAMP) ## Kill a server 200 times under eight readers.
	$(DEV_VENV)/bin/python -m pytest tests/faults/test_kills.py --kills 200 $(PYTEST_ARGS)

fuzz: fuzz-requests fuzz-manifests fuzz-checkpoints ## Send 140,000 hostile requests and manifests, read 20,000 damaged files.

fuzz-requests: $(DEV_STAMP) ## 80,000 hostile requests over a socket, half of them broken, and 40,000 to the admin service (7 to 15 minutes).
	$(DEV_VENV)/bin/python -m pytest tests/fuzz/test_requests.py tests/fuzz/test_admin.py --fuzz-cases 40000 $(PYTEST_ARGS)

fuzz-manifests: $(DEV_STAMP) ## 20,000 hostile manifests of bundles (2 to 7 minutes).
	$(DEV_VENV)/bin/python -m pytest tests/fuzz/test_manifests.py --fuzz-cases 20000 $(PYTEST_ARGS)

fuzz-checkpoints: $(DEV_STAMP) ## 20,000 damaged checkpoint files (7 to 15 minutes).
	$(DEV_VENV)/bin/python -m pytest -m fuzz tests/export/test_checkpoint_reading.py $(PYTEST_ARGS)

load: $(DEV_STAMP) ## Read 200 streams for five minutes: none may break, health and memory stay; benchmarks/results.
	$(DEV_VENV)/bin/python -m benchmarks.endurance $(BENCH_ARGS)

bench: $(DEV_STAMP) ## Measure on this machine: engines, service, a published model's size, transport; README's tables.
	$(DEV_VENV)/bin/python -m benchmarks $(or $(BENCH_ARGS),--rounds 5 --seconds 5)
	$(DEV_VENV)/bin/python -m benchmarks --engine fused $(or $(BENCH_ARGS),--rounds 5 --seconds 5)
	$(DEV_VENV)/bin/python -m benchmarks.workloads toonhead cat-256 --pictures 3
	$(if $(TRITON_PYTHON),$(DEV_VENV)/bin/python -m benchmarks.transport --triton-python $(TRITON_PYTHON))
	$(DEV_VENV)/bin/python -m benchmarks.readme

bench-gpu: $(GPU_STAMP) ## Measure the workloads on an NVIDIA GPU: the reference algorithm and the fused engine.
	$(GPU_VENV)/bin/python -m benchmarks.workloads --device cuda $(BENCH_ARGS)

test-gpu: $(GPU_STAMP) ## Run the tests that need an NVIDIA GPU, and those whose kernels take long without one.
	$(GPU_VENV)/bin/python -m pytest -m "gpu or interpreted" tests/service tests/export $(PYTEST_ARGS)

kernel: ## Compile the interpreter's kernel again (needs g++ 12 or newer).
	$(PYTHON) service/kernel/build.py

chart-schema: $(DEV_STAMP) ## Write the server's settings into the schema of the Helm chart again.
	$(DEV_VENV)/bin/python -m deploy.helm.settings_schema

kernel-gpu: $(DEV_STAMP) ## Compile the interpreter's kernels for GPUs again (needs no GPU).
	$(DEV_VENV)/bin/python service/kernel/compile_gpu.py

protos: $(PROTOS_STAMP) ## Generate the stubs again from the .proto files.
	$(PROTOS_VENV)/bin/python -m grpc_tools.protoc --proto_path=protos --python_out=protos --pyi_out=protos \
		--grpc_python_out=protos $(PROTO_FILES)
	@rm -f protos/labelmint/v1/bundle_pb2_grpc.py

check-protos: protos ## Fail if the committed stubs differ from what the .proto files generate.
	git diff --exit-code -- protos/labelmint/v1

clean: ## Remove environments, caches and outputs.
	rm -rf $(DEMO_VENV) $(DEV_VENV) $(PROTOS_VENV) $(GPU_VENV) out/demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find protos export service clients tests benchmarks deploy -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments -------------------------------------------------------------------------------------------------------

python-is-there:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 was found; install one: $(APT)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "$(PYTHON) is not Python 3.11 to 3.13; install one ($(APT)) or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; install what is missing: $(APT)" >&2; exit 1; }

$(DEMO_STAMP): pyproject.toml $(LOCK) | python-is-there
	@echo "Installing service and client into $(DEMO_VENV) ..."
	@$(PYTHON) -m venv $(DEMO_VENV)
	@$(DEMO_VENV)/bin/python $(PIP_INSTALL) --editable ".[service,cpu,cli]"
	@touch $@

$(DEV_STAMP): pyproject.toml $(LOCK) | python-is-there
	@echo "Installing everything into $(DEV_VENV); torch is large, this takes minutes ..."
	@$(PYTHON) -m venv $(DEV_VENV)
	@$(DEV_VENV)/bin/python $(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		--editable ".[service,cpu,cli,export,train,trt,bench,dev]"
	@touch $@

$(GPU_STAMP): pyproject.toml | python-is-there
	@echo "Installing CUDA builds of torch and onnxruntime into $(GPU_VENV); they are several gigabytes ..."
	@$(PYTHON) -m venv $(GPU_VENV)
	@# Not with the lock, which names onnxruntime: its files and those of onnxruntime-gpu overwrite each other.
	@$(GPU_VENV)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable ".[service,cli,gpu,export,bench,dev]"
	@$(GPU_VENV)/bin/python -m pip uninstall --disable-pip-version-check --quiet --yes onnxruntime onnxruntime-gpu
	@$(GPU_VENV)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) --no-deps "onnxruntime-gpu>=1.24"
	@touch $@

$(PROTOS_STAMP): | python-is-there
	@$(PYTHON) -m venv $(PROTOS_VENV)
	@# Not with the lock: this release needs an older protobuf. Its stubs load under protobuf 6 and 7.
	@$(PROTOS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) "grpcio-tools==1.78.0"
	@touch $@
