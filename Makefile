# make demo   the main job, on embedded defaults
# make test   everything that must hold
# make bench  the end-to-end measurements and docs/benchmarks.md, some 25 minutes; ARGS=--quick, or targets
# make wheel  the Python wheel around the release build, into target/wheels
# make soak   random faults for MINUTES, from SEED on

CARGO ?= cargo
LOCAL_SNOWFLAKE := operators/testing/local_snowflake/run

.PHONY: wheel demo test test-matrix soak fuzz lint bench local-snowflake postgres

demo: postgres
	$(LOCAL_SNOWFLAKE) --setup-only
	$(CARGO) build --release --locked
	target/release/etl-stream demo

test: postgres
	$(LOCAL_SNOWFLAKE) --setup-only
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-nextest >/dev/null; then \
		$(CARGO) nextest run --workspace --locked --no-fail-fast; \
	else \
		$(CARGO) test --workspace --locked --no-fail-fast; \
	fi
	$(CARGO) test --workspace --doc --locked
	operators/testing/local_snowflake/test
	operators/python/wheel/test

# Random workloads against random schedules of faults (docs/faults.md), one seed after the other; the seed is printed.
# FUZZ=1 fuzzes every parser first, as long.
SEED ?= $(shell date +%s)
MINUTES ?= 10
soak: postgres
	$(LOCAL_SNOWFLAKE) --setup-only
	$(if $(FUZZ),$(MAKE) fuzz)
	SEED=$(SEED) MINUTES=$(MINUTES) $(CARGO) test --locked --test end_to_end -- faults::soak --exact --ignored --nocapture

# The PostgreSQL suite on every server version found or installed here.
test-matrix: postgres
	operators/testing/install_postgres 16 17 18
	@for bin in /usr/lib/postgresql/*/bin target/postgres/*/bin; do \
		[ -x $$bin/postgres ] || continue; \
		echo "== $$($$bin/postgres --version)"; \
		ETL_STREAM_PG_BIN=$$(realpath $$bin) $(CARGO) nextest run --workspace --locked -E 'test(postgres) + binary(end_to_end)' || exit 1; \
	done

# Every parser of outside bytes under libFuzzer, MINUTES each; TARGETS selects some.
fuzz:
	operators/fuzz/run $(MINUTES) $(TARGETS)

wheel:
	$(CARGO) build --release --locked
	operators/python/wheel/build

bench: postgres
	benches/run $(ARGS)

# A local Snowflake that keeps running: SQL and Snowpipe Streaming on port 8950.
local-snowflake:
	$(LOCAL_SNOWFLAKE) --port 8950

postgres:
	operators/testing/install_postgres

lint:
	$(CARGO) deny check licenses bans sources
	$(CARGO) machete
