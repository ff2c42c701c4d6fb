# Build:     docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag testrun-exporter:0.1.0 .
# Try:       docker run --rm --publish 127.0.0.1:10955:10955 testrun-exporter:0.1.0 demo
# Prebuilt:  cargo build --release && docker build --target prebuilt --build-context binary=target/release --tag testrun-exporter:0.1.0 .
#            puts a program that is there already into the same image. Buildah before 1.29 and podman before 4.4 make every
#            stage, so they want --build-context binary=DIRECTORY in either case.

# What the image is beside the program: the C library and the certificate authorities. No shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="testrun-exporter" \
      org.opencontainers.image.description="Hosted test runs as Prometheus metrics" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
# Blocks of this size and more go back to the system when they are freed, whatever came before: left to itself glibc raises the
# bound each time, keeps them, and what is small lies scattered among the holes. (docs/sizing.md)
ENV MALLOC_MMAP_THRESHOLD_=262144
# A number, because runAsNonRoot cannot be checked on a name.
USER 65532:65532
EXPOSE 10955
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/testrun-exporter"]

FROM runtime AS prebuilt
# hadolint ignore=DL3022
COPY --from=binary --chmod=0755 testrun-exporter /usr/local/bin/testrun-exporter

FROM docker.io/library/rust:1.95-slim-bookworm AS build
WORKDIR /src
# The dependencies, in a layer of their own that stays until one of these files changes. Cargo wants to see every file that
# the manifest names; empty ones will do.
COPY Cargo.toml Cargo.lock ./
# hadolint ignore=SC2013
RUN mkdir -p src benches tests/it \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs tests/allocations.rs tests/it/main.rs \
    && for bench in $(sed -n '/^\[\[bench\]\]/{n;s/^name = "\(.*\)"/\1/p;}' Cargo.toml); do touch "benches/$bench.rs"; done \
    && cargo build --profile dist --locked --bin testrun-exporter
COPY . .
ARG REVISION=unknown
# Newer than what the layer above has made of the empty files.
RUN touch build.rs src/main.rs src/lib.rs \
    && TESTRUN_EXPORTER_REVISION="${REVISION}" cargo build --profile dist --locked --bin testrun-exporter

FROM runtime
COPY --from=build /src/target/dist/testrun-exporter /usr/local/bin/testrun-exporter
