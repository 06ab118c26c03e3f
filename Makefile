# Petrel. `make run` builds and starts the broker; `make test` runs every test; `make help` lists the rest.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/petrel
export CARGO_TARGET_DIR ?= $(CACHE)/target
CARGO := cargo
# One profile for everything, because RocksDB takes many minutes to compile for each profile.
PROFILE := --release
PETREL := $(CARGO_TARGET_DIR)/release/petrel
CONFIG ?= config/petrel.toml
.PHONY: help run build test check fmt lint doc deny unit interop fleet certs conformance settings sim crash hostile fuzz bench instructions clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

run: build certs ## Build, create development certificates, start the broker with config/petrel.toml
	@exec $(PETREL) serve --config $(CONFIG)

build: ## Build the release binary; installs missing build dependencies
	@scripts/setup.sh build
	$(CARGO) build $(PROFILE) --locked --bin petrel

test: unit interop ## Run every test, including those with third-party clients

unit: build ## Unit, property, black-box, simulation, crash and tidy tests; bridge tests need mosquitto
	@scripts/setup.sh test
	scripts/test.sh

interop: build ## Tests with third-party clients: mosquitto, paho, mqtt.js (rumqttc is part of `unit`)
	@scripts/setup.sh test
	tests/interop/run.sh $(PETREL)

check: fmt lint doc deny test ## Everything that must pass before a commit

fmt: ## Check the formatting
	$(CARGO) fmt --all --check

# Tests and benchmarks may unwrap and panic: that is how they fail.
TEST_LINTS := -A clippy::pedantic -A clippy::unwrap_used -A clippy::panic -A clippy::print_stdout -A clippy::print_stderr \
	-A clippy::wrong_self_convention -A clippy::type_complexity -A unreachable_pub -A unused_qualifications -A clippy::let_underscore_must_use

lint: ## Run clippy without warnings (tests may unwrap and panic), and see that the fuzz targets compile
	@scripts/setup.sh build
	$(CARGO) clippy $(PROFILE) --locked --lib --bins -- -D warnings
	$(CARGO) clippy $(PROFILE) --locked --all-targets -- -D warnings $(TEST_LINTS)
	$(CARGO) check $(PROFILE) --locked --manifest-path fuzz/Cargo.toml --bins

doc: ## Build the documentation without warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(PROFILE) --locked --no-deps --document-private-items

deny: ## Check licences, sources and advisories of the dependencies
	@scripts/deny.sh

fleet: build ## Run half a minute of fleet telemetry and account for every message
	@scripts/fleet.sh $(PETREL) $(ARGS)

certs: build ## Create a development CA, server and client certificate in certs/, unless they exist
	@test -e certs/ca.pem || test -e certs/ca.crt || $(PETREL) certs --out certs

settings: ## Regenerate config/petrel.toml and docs/configuration.md after a change to src/config/table.rs
	PETREL_WRITE_SETTINGS=1 $(CARGO) test $(PROFILE) --locked --lib config::shipped::the_

conformance: ## List which normative statement is covered by which test
	@scripts/conformance.py $(ARGS)

sim: ## Run the deterministic simulation; SEED=n replays one seed, SEEDS=n runs that many
	SEED=$(SEED) SEEDS=$(SEEDS) $(CARGO) test $(PROFILE) --locked --test simulation -- --nocapture

crash: ## Kill the broker (kill -9) and check that nothing acknowledged is lost; SEED=n replays a plan, ROUNDS=n kills in each mode
	$(CARGO) test $(PROFILE) --locked --test store --test broker -- crash kill
	SEED=$(SEED) ROUNDS=$(or $(ROUNDS),60) $(CARGO) test $(PROFILE) --locked --test crash -- --nocapture --test-threads=1

hostile: build ## Run hostile clients against the real program, in full size; prints how long other clients waited
	HOSTILE=full $(CARGO) test $(PROFILE) --locked --test hostile -- --nocapture --test-threads=1

fuzz: ## Fuzz one target: TARGET=decode_packet|session_operations|topic_match
	cd fuzz && $(CARGO) +nightly fuzz run $(or $(TARGET),decode_packet)

bench: build ## Compare Petrel, the bare loop and mosquitto: ARGS="--quick", ARGS="--write docs/performance.md"
	$(CARGO) build $(PROFILE) --locked --example bare_loop
	scripts/bench.py $(PETREL) $(CARGO_TARGET_DIR)/release/examples/bare_loop $(ARGS)

instructions: build ## Count the instructions of a message and compare with the baseline; ARGS=--record writes a new one
	@scripts/setup.sh instructions
	$(CARGO) build $(PROFILE) --locked --example instructions
	scripts/instructions.py $(CARGO_TARGET_DIR)/release/examples/instructions $(ARGS)

clean: ## Remove the build cache
	$(CARGO) clean
