# Everything one does with a checkout. Downloads go to .runtime/, nothing is installed on the machine.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash

CARGO ?= cargo
PYTHON ?= python3
# Further arguments: make demo ARGS='--rate 5000 --duration 30s'
ARGS ?=
# Stages of make test: make test STAGES='lint test-rust'
STAGES ?=

release := target/release
trial := target/trial
venv := .runtime/venv

# OpenSSL takes three minutes to build from source; the system's serves where its headers are installed.
ifeq ($(shell pkg-config --exists 'openssl >= 3' 2>/dev/null && echo yes),yes)
export OPENSSL_NO_VENDOR ?= 1
endif

# Files of Python tests beside each other: most of them wait for servers that start.
parallel := -n 2 --dist loadfile

# ONNX Runtime beside the programs of a folder. A new file by rename: a worker that runs keeps the old one.
beside = @cmp --silent .runtime/onnxruntime/libonnxruntime.so $(1)/libonnxruntime.so || { \
	cp .runtime/onnxruntime/libonnxruntime.so $(1)/libonnxruntime.so.new && \
	mv $(1)/libonnxruntime.so.new $(1)/libonnxruntime.so; }

.PHONY: help
help: ## Show this list
	@echo "make TARGET [ARGS='further arguments']"
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ First minutes

.PHONY: build
build: onnxruntime ## Build both binaries into target/release, with ONNX Runtime beside them
	$(CARGO) build --release --locked
	$(call beside,$(release))

.PHONY: onnxruntime
onnxruntime: # Get ONNX Runtime into .runtime/onnxruntime
	@scripts/onnxruntime.sh

.PHONY: demo
demo: onnxruntime ## Try everything in one process: embedded broker, load, worker
	@# Without what the demo does not need: a first build takes a third of the time of `make build`.
	@# CFLAGS are librdkafka's, which would otherwise be optimised as for a release.
	CFLAGS='-O1 -g0' $(CARGO) build --profile trial --no-default-features --locked --bin fraud-scorer
	$(call beside,$(trial))
	$(trial)/fraud-scorer demo $(ARGS)

.PHONY: retrain-demo
retrain-demo: build kafka-jars python-env ## A model rots, is trained anew, and replaced in a running worker (5 min)
	$(venv)/bin/python -m demos.retrain $(ARGS)

.PHONY: incident-demo
incident-demo: build kafka-jars python-env ## Things go wrong, alerts fire, mails arrive (7 min; at the shipped times: ARGS=--full)
	$(venv)/bin/python -m demos.incident $(ARGS)

##@ Run it

.PHONY: kafka
kafka: ## Start a real Kafka broker at 127.0.0.1:9092, in the background
	@scripts/kafka.sh start

.PHONY: kafka-stop
kafka-stop: ## Stop that broker; its data stays in .runtime/kafka
	@scripts/kafka.sh stop

.PHONY: run
run: build ## Run a worker against 127.0.0.1:9092
	$(release)/fraud-scorer run --create-topics $(ARGS)

.PHONY: produce
produce: build ## Send transactions to 127.0.0.1:9092
	$(release)/fraud-producer $(ARGS)

.PHONY: check
check: build ## Ask the worker whether model, ONNX Runtime, broker and topics are in order
	$(release)/fraud-scorer check $(ARGS)

##@ Models

.PHONY: train
train: python-env ## Train the models anew; the data: ARGS='--data creditcard.csv'
	$(venv)/bin/fraud-training train $(ARGS)

.PHONY: drift-report
drift-report: ## How far scored rows are from the training data: ARGS='--source ARCHIVE --output FOLDER'
	@scripts/drift-env.sh
	.runtime/drift/bin/fraud-training drift $(ARGS)

.PHONY: airflow
airflow: python-env ## Run the schedule's DAG once, in a local Airflow: ARGS='{"source": "FOLDER"}'
	scripts/airflow-env.sh dags test fraud_retrain --conf '$(or $(ARGS),{})'

##@ Measure

.PHONY: bench
bench: ## List the measurements; run one: ARGS='throughput --rounds 5' (benches/README.md)
	@CARGO='$(CARGO)' scripts/bench.sh $(ARGS)

##@ Develop

.PHONY: test
test: ## Everything that must pass before a change goes in; a part of it: STAGES='lint test-rust'
	@MAKE='$(MAKE)' STAGES='$(STAGES)' scripts/test.sh

.PHONY: chaos
chaos: onnxruntime kafka-jars ## Brokers, workers and archive under seeded faults (1 h; docs/RELIABILITY.md): ARGS='--seed 2'
	$(CARGO) test --release --locked --test chaos -- --faults 204 --transactions 10000000 --rate 5000 $(ARGS)

.PHONY: fuzz
fuzz: onnxruntime ## Feed made-up bytes to all that reads those of outsiders (10 min each); ARGS='--seconds 60 onnx http'
	@CARGO='$(CARGO)' scripts/fuzz.sh $(ARGS)

.PHONY: lint
lint: python-env ## Formatting, clippy, ruff
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(venv)/bin/ruff check training
	$(venv)/bin/ruff format --check training
	$(venv)/bin/ruff check --config training/pyproject.toml demos deploy scripts tests/deploy tests/http tests/fixtures benches
	$(venv)/bin/ruff format --check --config training/pyproject.toml demos deploy scripts tests/deploy tests/http tests/fixtures benches

.PHONY: deny
deny: sbom # Rules on licences and sources of the dependencies; known vulnerabilities, where OSV can be asked
	scripts/cargo-deny.sh --locked check --hide-inclusion-graph bans licenses sources
	$(PYTHON) scripts/advisories.py target/sbom.cdx.json

.PHONY: sbom
sbom: # Write target/sbom.cdx.json from the lock files
	$(PYTHON) scripts/sbom.py target/sbom.cdx.json

.PHONY: docs
docs: # Write docs/METRICS.md and docs/LOGS.md anew, from the definitions in the code
	FRAUD_SCORER_WRITE_DOCS=1 $(CARGO) test --locked --quiet --lib -p fraud-scorer the_document_

.PHONY: audit
audit: sbom ## Known vulnerabilities of the dependencies, crates that were given up; asks OSV and RustSec
	$(PYTHON) scripts/advisories.py --required target/sbom.cdx.json
	scripts/cargo-deny.sh --locked check advisories

.PHONY: test-rust
test-rust: onnxruntime kafka-jars python-env # Rust tests, those against a real broker and a real MLflow server included
	@# The tests mostly wait for brokers, timers and each other's processes: more of them at a time than there are cores.
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-6} $(CARGO) test --workspace --locked --no-fail-fast

.PHONY: test-fuzz
test-fuzz: onnxruntime # What fuzzing found before, and ten seconds of each target
	@CARGO='$(CARGO)' scripts/fuzz.sh --seconds 10

.PHONY: test-python
test-python: python-env kafka-jars # Tests of the training package, those against MLflow and Kafka included
	cd training && ../$(venv)/bin/pytest --durations=5 $(parallel)

.PHONY: test-spark
test-spark: onnxruntime # Tests of the Spark engine, in local mode (needs Java 17)
	@scripts/spark-env.sh
	cd training && ../.runtime/spark/bin/python -m pytest -p no:cacheprovider tests/test_spark.py

.PHONY: test-drift
test-drift: onnxruntime kafka-jars # Tests of the drift report: Evidently, a real worker's verdicts, a real Pushgateway
	@scripts/drift-env.sh
	$(CARGO) test --workspace --locked --no-run --quiet
	cd training && ../.runtime/drift/bin/python -m pytest -p no:cacheprovider tests/test_drift_report.py

.PHONY: test-deploy
test-deploy: python-env airflow-env mlflow-env test-http # Tests of scripts, images, compose file, schedule, Terraform, HTTP API, console
	@# They ask the binaries for their flags; after the Rust tests there is nothing left to build here.
	$(CARGO) test --workspace --locked --no-run --quiet
	$(venv)/bin/pytest -q --durations=8 $(parallel) tests/deploy

.PHONY: test-http
test-http: onnxruntime test-env # Tests of the HTTP API against its description, and of the console in Chromium
	$(CARGO) test --workspace --locked --no-run --quiet
	.runtime/test-venv/bin/pytest -q tests/http

.PHONY: prepare
prepare: airflow-env mlflow-env test-env # What the stages after test-rust need
	@scripts/spark-env.sh
	@scripts/drift-env.sh
	@scripts/cargo-deny.sh --version

.PHONY: clean
clean: ## Remove what can be made again; keeps MLflow runs and the broker's data
	$(CARGO) clean
	rm -rf .runtime/onnxruntime .runtime/tools .runtime/venv .runtime/airflow .runtime/mlflow-server .runtime/spark \
		.runtime/drift .runtime/kafka/libs

# ---- steps of the above ----------------------------------------------------------------------------------------

.PHONY: python-env
python-env:
	@scripts/python-env.sh

.PHONY: airflow-env
airflow-env:
	@scripts/airflow-env.sh

.PHONY: mlflow-env
mlflow-env:
	@scripts/mlflow-env.sh

.PHONY: test-env
test-env:
	@scripts/test-env.sh

.PHONY: kafka-jars
kafka-jars:
	@scripts/kafka.sh get
