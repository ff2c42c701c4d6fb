# Build:  docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag testrun-exporter:0.1.0 .
# Try:    docker run --rm --publish 127.0.0.1:10955:10955 testrun-exporter:0.1.0 demo

FROM docker.io/library/rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
ARG REVISION=unknown
# The caches hold what was downloaded and compiled before, so that a change of our own code compiles nothing else. They are
# not a part of the image: what is wanted from them is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    TESTRUN_EXPORTER_REVISION="${REVISION}" cargo build --profile dist --locked --bin testrun-exporter \
    && install -D target/dist/testrun-exporter /out/testrun-exporter

# No shell, no package manager: the C library, the certificate authorities and one program.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="testrun-exporter" \
      org.opencontainers.image.description="Hosted test runs as Prometheus metrics" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
COPY --from=build /out/testrun-exporter /usr/local/bin/testrun-exporter
# A number, because runAsNonRoot cannot be checked on a name.
USER 65532:65532
EXPOSE 10955
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/testrun-exporter"]
