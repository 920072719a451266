# LeanVibe Edge. `make run` and `make test` are all that a fresh machine needs.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
DATA := data

.PHONY: help run test lint bench scale chaos simulate quota-figures fuzz-api differential plugins templates setup setup-test clean-data

help:
	@echo "make run      build everything, start the edge with demo origins and tenants"
	@echo "make test     all tests"
	@echo "make lint     rustfmt and clippy, warnings are errors"
	@echo "make bench    CPU per request beside nginx, in one run"
	@echo "make scale    start, memory and latencies with 100,000 tenants on PostgreSQL"
	@echo "make chaos    quotas stay exact while edges, Redis and PostgreSQL are killed (7 min)"
	@echo "make simulate quotas stay exact in 100,000 simulated schedules of faults (long)"
	@echo "make quota-figures  Redis calls per request, usable share, an outage's latency (3 min)"
	@echo "make fuzz-api requests made from the API's own document, against a real edge"
	@echo "make differential  what the edge forwards, read by five other servers (100,000 mutants)"
	@echo "make templates  a new plugin of each template, built and tested (npm, PyPI, crates.io)"
	@echo "make plugins  build the first-party plugins into plugins/dist"

# What a fresh Debian lacks; asks for nothing when everything is there.
setup:
	@deploy/setup.sh

setup-test:
	@deploy/setup.sh test

run: setup
	$(CARGO) build --release --locked -p leanvibe-edge
	LEANVIBE_EDGE_BIN=$(TARGET)/release/leanvibe-edge plugins/build.sh
	exec env LEANVIBE_EDGE__DATA__DIR=$(DATA) $(TARGET)/release/leanvibe-edge demo

# --all-targets resolves features as the tests do, so that nothing is built twice.
test: setup-test
	$(CARGO) build --workspace --all-targets --locked
	LEANVIBE_EDGE_BIN=$(TARGET)/debug/leanvibe-edge plugins/build.sh
	$(CARGO) test --locked --manifest-path plugins/Cargo.toml
	@deploy/setup.sh templates
	LEANVIBE_EDGE_BIN=$(TARGET)/debug/leanvibe-edge plugins/templates/test.sh
	$(CARGO) test --workspace --all-targets --locked

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) fmt --manifest-path plugins/Cargo.toml --all --check
	$(CARGO) clippy --locked --manifest-path plugins/Cargo.toml -- -D warnings

plugins: setup
	$(CARGO) build --release --locked -p leanvibe-edge
	LEANVIBE_EDGE_BIN=$(TARGET)/release/leanvibe-edge plugins/build.sh

# The templates, as an author meets them: plugin new, build, test.
templates: setup
	@deploy/setup.sh templates
	$(CARGO) build --locked -p leanvibe-edge
	LEANVIBE_EDGE_BIN=$(TARGET)/debug/leanvibe-edge plugins/build.sh
	LEANVIBE_EDGE_BIN=$(TARGET)/debug/leanvibe-edge plugins/templates/test.sh

bench: setup
	$(CARGO) build --release --locked -p leanvibe-edge -p leanvibe-tests
	LEANVIBE_EDGE_BIN=$(TARGET)/release/leanvibe-edge plugins/build.sh
	$(TARGET)/release/leanvibe-bench

scale: setup-test
	$(CARGO) build --release --locked -p leanvibe-edge -p leanvibe-tests
	LEANVIBE_EDGE_BIN=$(TARGET)/release/leanvibe-edge plugins/build.sh
	$(TARGET)/release/leanvibe-bench scale

# CHAOS="--seed 7 --seconds 300" repeats a run, or makes it longer; "--cluster" is another Redis.
# Without it: a run over a master and a replica with TLS, and a shorter one over a Cluster.
chaos:
	@deploy/setup.sh chaos
	$(CARGO) build --release --locked -p leanvibe-edge -p leanvibe-chaos
	$(TARGET)/release/leanvibe-chaos $(CHAOS)
	$(if $(CHAOS),,$(TARGET)/release/leanvibe-chaos --cluster --seconds 40)

# SCHEDULES=1000 runs fewer; QUOTA_SIMULATION_SEED=7 one of them again.
SCHEDULES := 100000
simulate: setup-test
	QUOTA_SIMULATIONS=$(SCHEDULES) $(CARGO) test --release --locked -p leanvibe-quota --lib \
		simulation::no_schedule -- --nocapture

quota-figures: setup-test
	$(CARGO) build --release --locked -p leanvibe-edge -p leanvibe-chaos
	$(CARGO) run --release --locked -p leanvibe-quota --example decision_cost
	$(CARGO) run --release --locked -p leanvibe-quota --example lease_throughput
	$(TARGET)/release/leanvibe-chaos figures

fuzz-api: setup
	$(CARGO) build --locked -p leanvibe-edge
	LEANVIBE_EDGE_BIN=$(TARGET)/debug/leanvibe-edge plugins/build.sh
	LEANVIBE_EDGE_BIN=$(TARGET)/debug/leanvibe-edge tests/fuzz/api.sh

# MUTANTS=3000 sends fewer; DIFFERENTIAL_SEED=7 sends others.
MUTANTS := 100000
differential: setup-test
	$(CARGO) build --workspace --all-targets --locked
	LEANVIBE_EDGE_BIN=$(TARGET)/debug/leanvibe-edge plugins/build.sh
	DIFFERENTIAL_REQUESTS=$(MUTANTS) $(CARGO) test --workspace --all-targets --locked \
		conformance::differential -- --nocapture

clean-data:
	rm -rf $(DATA)
