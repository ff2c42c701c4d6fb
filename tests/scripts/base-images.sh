#!/usr/bin/env bash
# base-images.sh [--toolchain]
#
# Images with the names that the Dockerfile and the manifests ask for, made from Debian's packages and this machine's own files,
# for machines that reach no container registry: the distroless base, the pause container, and with --toolchain the Rust
# image from this machine's toolchain. Stand-ins for tests, never to be published. Honours CONTAINERS_CONF and PODMAN_ROOT as
# tests/scripts/podman.sh sets them.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/scripts/podman.sh

distroless=gcr.io/distroless/cc-debian12:nonroot
pause=registry.k8s.io/pause:3.10
rust=docker.io/library/rust:1.95-slim-bookworm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! podman_ image exists "$pause"; then
  echo "making $pause"
  mkdir "$work/pause"
  cp "$(command -v catatonit || echo /usr/libexec/podman/catatonit)" "$work/pause/pause"
  tar -C "$work/pause" -c . | podman_ import -c 'ENTRYPOINT ["/pause","-P"]' -c 'USER 65535:65535' - "$pause" >/dev/null
fi

if ! podman_ image exists "$distroless"; then
  echo "making $distroless"
  mmdebstrap --quiet --variant=extract --include=libc6,libgcc-s1,ca-certificates,tzdata,base-files,netbase bookworm "$work/base"
  # Nothing but what the program needs. The packages' own scripts have not run, so what they would have made is made here.
  echo 'root:x:0:0:root:/root:/sbin/nologin
nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >"$work/base/etc/passwd"
  echo 'root:x:0:
nonroot:x:65532:' >"$work/base/etc/group"
  mkdir -p "$work/base/etc/ssl/certs" "$work/base/home/nonroot"
  cat "$work"/base/usr/share/ca-certificates/mozilla/*.crt >"$work/base/etc/ssl/certs/ca-certificates.crt"
  tar -C "$work/base" --exclude=./dev --exclude=./usr/share/doc -c . | podman_ import -c 'USER 65532:65532' - "$distroless" >/dev/null
fi

if [ "${1:-}" = --toolchain ] && ! podman_ image exists "$rust"; then
  echo "making $rust"
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,gcc,libc6-dev bookworm "$work/rust"
  sysroot=$(rustc --print sysroot)
  mkdir -p "$work/rust/usr/local/cargo" "$work/rust/usr/local/rust"
  cp -a "$sysroot/bin" "$sysroot/lib" "$work/rust/usr/local/rust/"
  rm -rf "$work/rust/usr/local/rust/lib/rustlib/src"
  # The authorities that this machine trusts: its packages may come through a mirror.
  cp /etc/ssl/certs/ca-certificates.crt "$work/rust/etc/ssl/certs/ca-certificates.crt"
  tar -C "$work/rust" --exclude=./dev -c . | podman_ import \
    -c 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c 'ENV CARGO_HOME=/usr/local/cargo' - "$rust" >/dev/null
fi
