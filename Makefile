# Everything a person types. `make` alone says what there is. The work is in scripts/; this names it.

.DEFAULT_GOAL := help
SHELL := /bin/bash
RUN := ./scripts/run.sh

.PHONY: help setup setup-tests build demo demo-stop cluster cluster-add cluster-stop cluster-status test verify fix \
        docker-test partition-test disk-test page-test proto-lint proto-baseline deb

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Finds or installs what the build needs; the second time there is nothing to do
	@./scripts/setup.sh

setup-tests:
	@./scripts/setup.sh --tests

build: setup
	$(RUN) cargo build --release --locked -p tidemark-node -p tidemark-tools -p tidemark-bench -p tidemark-client \
	    --bins --example device_health --example flood_monitor

demo: build ## One process, a fleet of 22,042 devices in a storm, both applications, and what to try next
	@./scripts/demo.sh

demo-stop: ## Stops the demo; its data stays under ./data
	@./scripts/apps.sh down
	@./scripts/nodes.sh down demo 1

cluster: build ## The same on three processes
	@./scripts/demo.sh cluster

cluster-add: build ## One more process, the fourth, the fifth …, which joins the cluster
	@./scripts/nodes.sh add node 3
	@echo "  next: tidemark cluster status; tidemark rebalance --dry-run"

cluster-stop: ## Stops all processes of the cluster; their data stays under ./data
	@./scripts/apps.sh down
	@./scripts/nodes.sh down node 3

cluster-status: ## Which of them run, and what the cluster says of itself
	@./scripts/nodes.sh status node 3
	@$(RUN) bash -c '"$$CARGO_TARGET_DIR/release/tidemark" cluster status'

test: setup-tests ## All tests
	@$(RUN) ./scripts/test.sh

verify: setup-tests ## What a change must pass: format, lints, tests. Changes nothing
	$(RUN) cargo fmt --all --check
	$(RUN) cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(RUN) ./scripts/test.sh

fix: ## Formats and applies what the lints suggest. Judges nothing
	$(RUN) cargo fmt --all
	$(RUN) cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(RUN) cargo fmt --all

docker-test: build ## The image and docker-compose.yml, where an engine runs: leader killed, network cut, one node more
	@$(RUN) ./scripts/docker-test.sh

partition-test: build ## Three nodes on hosts of their own (network namespaces, as root), and packets that are dropped
	@$(RUN) ./scripts/partition-test.sh

disk-test: build ## Three nodes on small disks that fill up to the last byte (tmpfs, as root)
	@$(RUN) ./scripts/disk-test.sh

page-test: ## The pages of the reference applications in a headless browser, against a demo that runs
	@$(RUN) ./scripts/page-test.sh

deb: setup ## A Debian package with both programs, the unit and a configuration
	@./scripts/deb.sh

proto-lint: ## buf lint over proto/ (fetches buf once)
	@./scripts/proto-lint.sh

proto-baseline: ## At a release: adds what is new in tidemark.v1 to proto/baseline; refuses a break
	TIDEMARK_BASELINE=write $(RUN) cargo test -q -p tidemark-proto --test compat
