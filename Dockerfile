# Both binaries, ONNX Runtime and the committed models; runs the worker unless told otherwise:
#
#   docker build --tag fraud-scorer:local .
#   docker run --rm fraud-scorer:local run --brokers HOST:PORT
#   docker run --rm --entrypoint fraud-producer fraud-scorer:local --brokers HOST:PORT

FROM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY scripts/onnxruntime.sh scripts/onnxruntime.txt scripts/
RUN scripts/onnxruntime.sh
COPY . .
# The caches live outside the image: after a change only what changed is compiled.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    cargo build --release --locked \
    && mkdir /fraud-scorer \
    && cp target/release/fraud-scorer target/release/fraud-producer \
        .runtime/onnxruntime/libonnxruntime.so /fraud-scorer/ \
    && mkdir -p /fraud-scorer/licenses/onnxruntime \
    && cp .runtime/onnxruntime/LICENSE .runtime/onnxruntime/ThirdPartyNotices.txt /fraud-scorer/licenses/onnxruntime/

FROM debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171
# The certificate authorities, for brokers behind TLS.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fraud-scorer
# Relative model paths, such as the default models/fraud, start here.
WORKDIR /opt/fraud-scorer
COPY --from=build /fraud-scorer/ ./
COPY --chmod=755 scripts/readyz.sh ./readyz
COPY models/ models/
ENV PATH=/opt/fraud-scorer:$PATH
# It cannot be reached from outside until FRAUD_SCORER_HTTP and the rest say how and who (docs/HTTP.md).
EXPOSE 9464
USER 10001
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["readyz"]
ENTRYPOINT ["fraud-scorer"]
CMD ["run"]
