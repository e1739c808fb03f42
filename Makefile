# Two commands do everything on a fresh machine: `make localnet` and `make test`.
# Both use one profile and one target directory, so after one the other builds no dependency again.

export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/perturb/target
# Several processes share the machine: torch must not start a thread per core in each.
export OMP_NUM_THREADS ?= 1

VALIDATORS ?= 4
MINERS ?= 4
EPOCHS ?= 2
SEED ?= 1
RULES ?= subnet
KEEP ?= 0
DRILL ?= 0
COMMIT_REVEAL ?= 0

# Scenarios: which (all of them).
SCENARIOS ?=

# The simulator.
SEEDS ?= 10000
FIRST ?= 1
N ?= 4
TRACE ?= 0
BUG ?= none

# The fuzzer: seconds for each target, and which (all of them).
SECONDS ?= 60
TARGETS ?=

# Parity and throughput: which models (all of them), batch and torch threads.
MODELS ?=
BATCH ?= 4
THREADS ?= 1

# The comparison of attacks: images for each model.
IMAGES ?= 100

# The measurement of a device: which, and the side of the images.
DEVICE ?= cuda
SIDE ?= 64

BIN := $(CARGO_TARGET_DIR)/debug

.PHONY: help setup build localnet test scenarios simulate gains wan fuzz lint deny bench bench-attacks bench-gpu sdk-check \
	train-demo parity parity-fixtures throughput wallet-check wallet-fixtures clean

help:
	@echo "make localnet   a whole network of processes on this machine, to weights on chain"
	@echo "                (EPOCHS=$(EPOCHS) VALIDATORS=$(VALIDATORS) MINERS=$(MINERS) SEED=$(SEED) RULES=$(RULES) KEEP=1 DRILL=1 COMMIT_REVEAL=1)"
	@echo "make test       every test, set-up included"
	@echo "make scenarios  what may happen on the chain, one local network after the other (SCENARIOS=\"name …\" for some)"
	@echo "make simulate   a whole network in virtual time, seed by seed, with liars and faults"
	@echo "                (SEEDS=$(SEEDS) N=$(N) FIRST=$(FIRST); SEED=n TRACE=1 replays one; BUG=low-quorum plants a bug)"
	@echo "make gains      what strategies of miners and validators gain over honesty, and how many forged rounds are found (SEEDS=10)"
	@echo "make wan        how long a decision takes over a wide-area network (N=100)"
	@echo "make sdk-check  Bittensor's official SDK against our development chain"
	@echo "make fuzz       coverage-guided fuzzing of everything that arrives from outside"
	@echo "                (SECONDS=$(SECONDS) for each target; TARGETS=\"machine png\" for some)"
	@echo "make bench      the measurements of the README"
	@echo "make parity     the real models against timm and torchvision, in float64 (MODELS=\"name …\" for some)"
	@echo "make wallet-check  our wallets and signatures beside the official Python package's"
	@echo "make throughput our forward and gradient beside PyTorch's, on this machine (BATCH=$(BATCH) THREADS=$(THREADS))"
	@echo "make bench-attacks  our attack beside foolbox, adv-lib and torchattacks (IMAGES=$(IMAGES); RESUME=1 goes on)"
	@echo "make bench-gpu  gradients, verified answers, and score against time on a device"
	@echo "                (DEVICE=$(DEVICE) SIDE=$(SIDE) IMAGES=$(IMAGES) MODELS=\"demo NAME=FILE …\")"
	@echo "make lint       formatting, clippy with warnings denied"
	@echo "make deny       licences and sources of all dependencies (cargo-deny)"
	@echo "make train-demo draws the demo images and trains the demo classifier again"

setup:
	@scripts/setup.sh

build: setup
	cargo build --workspace --all-targets --locked

localnet: build
	@$(BIN)/perturb localnet --validators $(VALIDATORS) --miners $(MINERS) --epochs $(EPOCHS) --seed $(SEED) \
		--rules $(RULES) $(if $(filter 1,$(KEEP)),--keep) $(if $(filter 1,$(DRILL)),--drill) \
		$(if $(filter 1,$(COMMIT_REVEAL)),--commit-reveal)

test: build
	@# The fuzzer has a lock file of its own, which would else fall behind unseen.
	@cargo metadata --locked --format-version 1 --manifest-path tests/fuzz/libfuzzer/Cargo.toml >/dev/null
	cargo nextest run --workspace --all-targets --locked

scenarios: build
	@scripts/scenarios.sh $(BIN)/perturb $(SEED) $(SCENARIOS)

simulate: setup
	@cargo build --workspace --locked --bin perturb-simulate
	@$(BIN)/perturb-simulate --n $(N) --bug $(BUG) $(if $(findstring command,$(origin SEED)), \
		--seed $(SEED) $(if $(filter 1,$(TRACE)),--trace), --first $(FIRST) --seeds $(SEEDS))

# What a strategy of miners and validators gains over honesty, and how many forged rounds are found, on the
# real ledger.
gains: setup
	@cargo build --workspace --locked --bin perturb-simulate
	@$(BIN)/perturb-simulate --gains --seeds $(if $(findstring command,$(origin SEEDS)),$(SEEDS),10) --first $(FIRST)

wan: setup
	@cargo build --workspace --locked --bin perturb-simulate
	@$(BIN)/perturb-simulate --wan --n $(N)

# The SDK is Python, installed once per user; what it reads of the weights is compared with what we read.
sdk-check: setup
	@cargo build --workspace --locked --bin perturb-devchain --example weights --example oracle
	@python=$$(scripts/sdk_check/venv.sh) && \
		$$python scripts/sdk_check/check.py --devchain $(BIN)/perturb-devchain --our-reader $(BIN)/examples/weights && \
		$$python scripts/sdk_check/oracle.py $(BIN)/examples/oracle

fuzz: setup
	@scripts/fuzz.sh $(SECONDS) $(TARGETS)

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

deny:
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny
	cargo deny --all-features check licenses bans sources

bench: setup
	cargo bench --workspace --locked --profile dev --bench "*"

# Our wallets and signatures beside the official Python package's, both ways.
wallet-check: setup
	@cargo build --workspace --locked --example interop
	@python=$$(scripts/sdk_check/venv.sh) && folder=$$(mktemp -d) && \
		$$python scripts/wallet/wallet.py $$folder $(BIN)/examples/interop; code=$$?; rm -rf $$folder; exit $$code

# What `make test` reads, made anew.
wallet-fixtures: setup
	@cargo build --workspace --locked --example interop
	@python=$$(scripts/sdk_check/venv.sh) && $$python scripts/wallet/wallet.py wallet/fixtures $(BIN)/examples/interop

parity: setup
	@cargo build --locked -p perturb-model --example parity
	@python=$$(scripts/venv.sh) && $$python scripts/parity/parity.py $(BIN)/examples/parity $(MODELS)

# What `make test` compares with, after a change of the small networks.
parity-fixtures:
	@python=$$(scripts/venv.sh) && $$python scripts/parity/fixtures.py model/fixtures/zoo

throughput: setup
	@cargo build --locked -p perturb-model --example parity
	@python=$$(scripts/venv.sh) && $$python scripts/parity/throughput.py $(BIN)/examples/parity \
		--batch $(BATCH) --threads $(THREADS) $(MODELS)

# What a device does for miners and validators. libtorch with CUDA is the whole wheel, which the Python peers have;
# it is linked in a target directory of its own.
bench-gpu: setup
	@python=$$(scripts/venv.sh) && export LIBTORCH=$$($$python -c 'import torch, os; print(os.path.dirname(torch.__file__))') && \
		CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)-cuda cargo build --locked -p perturb-miner --example bench_gpu && \
		$(CARGO_TARGET_DIR)-cuda/debug/examples/bench_gpu $(DEVICE) $(SIDE) $(IMAGES) $(or $(MODELS),demo)

# What ours is worth beside the public libraries: a table in bench/attacks.md. Fails where a peer wins.
bench-attacks: build
	@python=$$(scripts/venv.sh) && $$python scripts/bench_attacks/bench.py --perturb $(BIN)/perturb \
		--weights model/weights/demo.safetensors --cache $(CARGO_TARGET_DIR)/../bench-attacks --images $(IMAGES) \
		$(if $(RESUME),--resume)

train-demo: build
	$(BIN)/perturb model train-demo

clean:
	rm -rf localnet
