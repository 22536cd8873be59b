# The commands of this project's developers. `make run` and `make test` need no preparation.

.DEFAULT_GOAL := help
LOCAL := .local
TOOLS := $(LOCAL)/tools
REJECTED ?= 1
EXAMPLES ?= 500
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
TARGET ?= request
SECONDS ?= 60
# Runs a command with a PostgreSQL server of its own, whatever CMDB_DATABASE_URL says.
THROWAWAY := env -u CMDB_DATABASE_URL .dev/with-postgres --throwaway
export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)
export CARGO_TERM_COLOR ?= auto

ifdef CMDB_DATABASE_URL
IS_PRIVATE := no
else
IS_PRIVATE := yes
endif

.PHONY: help run test test-large test-replay test-clients crash-test ha-test pooler-test \
	upgrade-test bench bench-reads bench-scale bench-import bench-send bench-compare \
	bench-settings bench-pure fuzz check check-api check-deploy prepare

help: ## List these commands
	@sed -nE 's/^([a-z-]+):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: ## Serve the demo inventory and print a curl command that works
	@env --default-signal=INT .dev/with-postgres $(LOCAL)/postgres .dev/run $(LOCAL) $(IS_PRIVATE)

test: ## Run the tests on a private PostgreSQL server, or on CMDB_DATABASE_URL
	.dev/with-postgres --throwaway cargo test --locked

test-large: RACE_SECONDS ?= 60
test-large: ## Run the slow tests: plans, floods, races, crashes, clients, random requests; DATA as in test-replay
	$(if $(DATA),$(MAKE) test-replay)
	CMDB_LARGE_TESTS=1 CMDB_RACE_SECONDS=$(RACE_SECONDS) \
		$(THROWAWAY) cargo test --locked --test it -- --nocapture \
		flood:: instance_races:: link_searches:: query_plans::
	$(MAKE) crash-test ROUNDS=5
	$(MAKE) test-clients
	$(MAKE) check-api EXAMPLES=50

test-replay: ## Replay DATA/requests.jsonl after importing DATA/export, of which REJECTED rows are invalid
	@test -d "$(DATA)/export" || { echo "test-replay: no directory '$(DATA)/export'" >&2; exit 2; }
	CMDB_REPLAY_DATA='$(abspath $(DATA))' CMDB_REPLAY_REJECTED=$(REJECTED) \
		.dev/with-postgres --throwaway cargo test --locked --test it replay:: -- --nocapture

test-clients: ## Call the server with the Python SDK and with the programs of the API guide
	$(THROWAWAY) .dev/clients $(abspath $(LOCAL))

crash-test: ROUNDS ?= 25
crash-test: ## Kill the server and PostgreSQL under load, ROUNDS times, and look for lost writes
	cargo test --locked --test crash -- $(ROUNDS)

ha-test: ## Make parts of a cluster as in deploy/ha fail under load (root, 6 minutes); ROUNDS by name
	.dev/ha-test $(abspath $(LOCAL)) $(ROUNDS)

pooler-test: ## Run the tests through pgbouncer, in session mode and in transaction mode
	.dev/pooler-test $(LOCAL)

upgrade-test: ## Replace the server by a newer version under load, and go back
	$(THROWAWAY) .dev/upgrade-test $(LOCAL)

bench: ## Measure the endpoint and PostgreSQL alone (4 GB memory, 8 GB disk, 10 minutes)
	cargo bench --locked --bench endpoint

bench-reads: LINKS ?= 10000000
bench-reads: ## Measure searches and deletions among LINKS links (4 GB memory, 8 GB disk, 5 minutes)
	cargo bench --locked --bench endpoint -- reads $(LINKS)

bench-scale: LINKS ?= 20000000
bench-scale: ## Measure a new database, and up to LINKS links (4 GB memory, 16 GB disk, 10 minutes)
	cargo bench --locked --bench endpoint -- scale $(LINKS)

bench-import: SIZE ?= 1000000
bench-import: ## Measure the import of SIZE instances and as many links (4 GB disk, 5 minutes)
	cargo bench --locked --bench endpoint -- import $(SIZE)

bench-send: ROUNDS ?= 3
bench-send: ## Measure the command send with a million rows (4 GB memory, 8 GB disk, 5 minutes)
	cargo bench --locked --bench endpoint -- send $(ROUNDS)

bench-compare: ROUNDS ?= 10
bench-compare: ## Compare this build with the server binary OLD, side by side
	cargo bench --locked --bench endpoint -- compare '$(OLD)' $(ROUNDS)

bench-settings: ## Measure the effect of PostgreSQL's and the server's settings
	cargo bench --locked --bench endpoint -- settings

bench-pure: ## Measure the work before and after the database
	cargo bench --locked --bench pure

fuzz: $(TOOLS)/bin/cargo-fuzz ## Fuzz TARGET (request, body, import or condition) for SECONDS
	@mkdir -p $(LOCAL)/fuzz/corpus/$(TARGET) fuzz/corpus/$(TARGET)
	cargo fuzz run -s none --target-dir $(LOCAL)/fuzz/target $(TARGET) \
		$(LOCAL)/fuzz/corpus/$(TARGET) fuzz/corpus/$(TARGET) \
		-- -max_total_time=$(SECONDS) -timeout=10

check: $(TOOLS)/bin/cargo-deny ## Check formatting, lints, documentation, query data and licences
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test crash --test upgrade -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	$(THROWAWAY) .dev/queries $(LOCAL)/queries
	diff -r .sqlx $(LOCAL)/queries || { echo "check: .sqlx is stale: run make prepare" >&2; exit 1; }
	cargo deny --locked check licenses bans sources
	.dev/advisories

check-api: ## Send random valid and invalid requests with schemathesis, EXAMPLES per operation
	$(THROWAWAY) .dev/schemathesis $(abspath $(LOCAL)) $(EXAMPLES)

check-deploy: ## Check the files in deploy/ with the tools that read them
	.dev/deploy $(LOCAL)

prepare: ## Generate .sqlx, src/db/schema_objects.tsv and the settings in docs/configuration.md
	$(THROWAWAY) .dev/queries .sqlx
	UPDATE_DOCS=1 $(THROWAWAY) cargo test --locked --test it -- --exact \
		schema::the_expected_objects_are_those_that_the_migrations_make \
		tidy::the_configuration_page_has_the_settings_of_help

$(TOOLS)/bin/cargo-deny:
	cargo install --locked --version $(CARGO_DENY_VERSION) --root $(TOOLS) cargo-deny

$(TOOLS)/bin/cargo-fuzz:
	cargo install --locked --version $(CARGO_FUZZ_VERSION) --root $(TOOLS) cargo-fuzz
