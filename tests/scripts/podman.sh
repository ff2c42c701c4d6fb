# shellcheck shell=bash
# To be sourced: podman_ and buildah_ are podman and buildah with everything of theirs below one directory, and with settings that
# work where a machine is itself a container: no systemd, no right to raise limits, cgroups of either version.

PODMAN_ROOT=${PODMAN_ROOT:-/var/tmp/testrun-exporter-podman}
export PODMAN_ROOT
mkdir -p "$PODMAN_ROOT"/{root,run}
limit=$(ulimit -Hn)
[ "$limit" != unlimited ] || limit=1048576
cat >"$PODMAN_ROOT/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$limit:$limit", "nproc=4096:4096"]
[network]
network_backend = "netavark"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
export CONTAINERS_CONF=$PODMAN_ROOT/containers.conf

podman_() { podman --root "$PODMAN_ROOT/root" --runroot "$PODMAN_ROOT/run" "$@"; }
buildah_() { buildah --root "$PODMAN_ROOT/root" --runroot "$PODMAN_ROOT/run" "$@"; }
