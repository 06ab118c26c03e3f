# Petrel. `make run` builds and starts the broker; `make test` runs every test; `make help` lists the rest.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/petrel
export CARGO_TARGET_DIR ?= $(CACHE)/target
CARGO := cargo
# One profile for everything: RocksDB takes many minutes to compile, once for each profile.
PROFILE := --release
PETREL := $(CARGO_TARGET_DIR)/release/petrel
CONFIG ?= config/petrel.toml
.PHONY: help run build test check fmt lint doc deny unit interop fleet certs conformance settings sim crash hostile fuzz bench instructions clean

help: ## What can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

run: build certs ## Build, make development certificates, start the broker on config/petrel.toml
	@exec $(PETREL) serve --config $(CONFIG)

build: ## Build the release binary; installs what the build lacks
	@scripts/setup.sh build
	$(CARGO) build $(PROFILE) --locked --bin petrel

test: unit interop ## Run every test, with other people's clients too

unit: build ## Unit, property, black-box, simulation, crash and tidy tests; those of bridges need mosquitto
	@scripts/setup.sh test
	scripts/test.sh

interop: build ## Clients that others wrote: mosquitto, paho, mqtt.js (rumqttc is part of `unit`)
	@scripts/setup.sh test
	tests/interop/run.sh $(PETREL)

check: fmt lint doc deny test ## All that must be green before a commit

fmt: ## Formatting
	$(CARGO) fmt --all --check

# Tests and benchmarks unwrap and panic: that is how they fail.
TEST_LINTS := -A clippy::pedantic -A clippy::unwrap_used -A clippy::panic -A clippy::print_stdout -A clippy::print_stderr \
	-A clippy::wrong_self_convention -A clippy::type_complexity -A unreachable_pub -A unused_qualifications -A clippy::let_underscore_must_use

lint: ## Clippy, no warnings; tests may unwrap and panic
	@scripts/setup.sh build
	$(CARGO) clippy $(PROFILE) --locked --lib --bins -- -D warnings
	$(CARGO) clippy $(PROFILE) --locked --all-targets -- -D warnings $(TEST_LINTS)

doc: ## Documentation, no warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(PROFILE) --locked --no-deps --document-private-items

deny: ## Licences, sources and advisories of the dependencies
	@scripts/deny.sh

fleet: build ## Half a minute of fleet telemetry against the built binary, every message accounted for
	@scripts/fleet.sh $(PETREL) $(ARGS)

certs: build ## Development CA, server and client certificate under certs/, unless there are some
	@test -e certs/ca.pem || test -e certs/ca.crt || $(PETREL) certs --out certs

settings: ## Write config/petrel.toml and docs/configuration.md again, after a change of src/config/table.rs
	PETREL_WRITE_SETTINGS=1 $(CARGO) test $(PROFILE) --locked --lib config::shipped::the_

conformance: ## The score: which normative statement is shown by which test
	@scripts/conformance.py $(ARGS)

sim: ## Deterministic simulation; SEED=n replays one seed, SEEDS=n runs that many
	SEED=$(SEED) SEEDS=$(SEEDS) $(CARGO) test $(PROFILE) --locked --test simulation -- --nocapture

crash: ## kill -9 in the middle of work, with what was acknowledged checked; SEED=n replays a plan, ROUNDS=n kills each mode
	$(CARGO) test $(PROFILE) --locked --test store --test broker -- crash kill
	SEED=$(SEED) ROUNDS=$(or $(ROUNDS),60) $(CARGO) test $(PROFILE) --locked --test crash -- --nocapture --test-threads=1

hostile: build ## Hostile Clients against the real program, in full size; prints how long others waited for them
	HOSTILE=full $(CARGO) test $(PROFILE) --locked --test hostile -- --nocapture --test-threads=1

fuzz: ## Fuzz one target: TARGET=decode_packet|session_operations|topic_match
	cd fuzz && $(CARGO) +nightly fuzz run $(or $(TARGET),decode_packet)

bench: build ## Petrel, the bare loop and mosquitto side by side: ARGS="--quick", ARGS="--write docs/performance.md"
	$(CARGO) build $(PROFILE) --locked --example bare_loop
	scripts/bench.py $(PETREL) $(CARGO_TARGET_DIR)/release/examples/bare_loop $(ARGS)

instructions: build ## Instructions of a message, compared with the baseline; ARGS=--record writes a new one
	@scripts/setup.sh instructions
	$(CARGO) build $(PROFILE) --locked --example instructions
	scripts/instructions.py $(CARGO_TARGET_DIR)/release/examples/instructions $(ARGS)

clean: ## Remove the build cache
	$(CARGO) clean
