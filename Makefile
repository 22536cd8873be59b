# Everything a developer or a curious user calls. `make run` and `make test` need nothing set up before.

.DEFAULT_GOAL := help
LOCAL := .local
TOOLS := $(LOCAL)/tools
LEFT_OUT ?= 1
ROUNDS ?= 25
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
TARGET ?= request
SECONDS ?= 60
export PATH := $(CURDIR)/$(TOOLS)/bin:$(PATH)
export CARGO_TERM_COLOR ?= auto

ifdef CMDB_DATABASE_URL
IS_OURS := no
else
IS_OURS := yes
endif

.PHONY: help run test test-replay crash-test fuzz bench bench-settings bench-pure check check-api check-deploy prepare

help: ## What can be made
	@sed -nE 's/^([a-z-]+):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: ## Serve the endpoint with a demo inventory, and print a curl that works
	@env --default-signal=INT .dev/with-postgres $(LOCAL)/postgres .dev/run $(LOCAL) $(IS_OURS)

test: ## Run every test, on a PostgreSQL of their own
	.dev/with-postgres --throwaway cargo test --locked

crash-test: ## Kill the server and its PostgreSQL under load, ROUNDS times, and count what was lost
	cargo test --locked --test crash -- $(ROUNDS)

test-replay: ## Replay the requests of the folder DATA, whose export has LEFT_OUT rows that cannot be imported
	@test -d "$(DATA)/export" || { echo "test-replay: there is no folder DATA/export: DATA='$(DATA)'" >&2; exit 2; }
	CMDB_REPLAY_DATA='$(abspath $(DATA))' CMDB_REPLAY_LEFT_OUT=$(LEFT_OUT) \
		.dev/with-postgres --throwaway cargo test --locked --test it replay:: -- --nocapture

bench: ## Time the endpoint beside what PostgreSQL itself can do (4 GB of memory, 8 GB of disk, under 10 minutes)
	cargo bench --locked --bench endpoint

bench-settings: ## Time what settings are worth
	cargo bench --locked --bench endpoint -- settings

bench-pure: ## Time what is done before and after the database
	cargo bench --locked --bench pure

fuzz: $(TOOLS)/bin/cargo-fuzz ## Look for input that breaks TARGET (request, body, import) for SECONDS, beyond its corpus
	@mkdir -p $(LOCAL)/fuzz/corpus/$(TARGET) fuzz/corpus/$(TARGET)
	cargo fuzz run -s none --target-dir $(LOCAL)/fuzz/target $(TARGET) $(LOCAL)/fuzz/corpus/$(TARGET) fuzz/corpus/$(TARGET) \
		-- -max_total_time=$(SECONDS) -timeout=10

check: $(TOOLS)/bin/cargo-deny ## Check formatting, lints, documentation, query data, licences
	cargo fmt --check
	cargo clippy --locked --all-targets --test crash -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	env -u CMDB_DATABASE_URL .dev/with-postgres --throwaway .dev/queries $(LOCAL)/queries
	diff -r .sqlx $(LOCAL)/queries || { echo "check: .sqlx is stale: run make prepare" >&2; exit 1; }
	cargo deny --locked check licenses bans sources
	.dev/advisories

check-api: ## Send what the API's description allows and what it forbids, by schemathesis
	.dev/with-postgres --throwaway .dev/schemathesis $(abspath $(LOCAL))

check-deploy: ## Check the files of deploy/ with the tools that will read them
	.dev/deploy $(LOCAL)

prepare: ## Renew what is made of the code: the query data in .sqlx, the settings in the README
	env -u CMDB_DATABASE_URL .dev/with-postgres --throwaway .dev/queries .sqlx
	UPDATE_README=1 cargo test --locked --test it the_readme_has_the_settings

$(TOOLS)/bin/cargo-deny:
	cargo install --locked --version $(CARGO_DENY_VERSION) --root $(TOOLS) cargo-deny

$(TOOLS)/bin/cargo-fuzz:
	cargo install --locked --version $(CARGO_FUZZ_VERSION) --root $(TOOLS) cargo-fuzz
