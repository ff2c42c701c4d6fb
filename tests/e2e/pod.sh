#!/usr/bin/env bash
# pod.sh [PROGRAM]
#
# The whole deployment on one machine: builds the image around PROGRAM (target/release/testrun-exporter unless told), plays the
# sidecar pod of deploy/kubernetes with an application and the simulated platforms, scrapes it with Prometheus, rotates a
# token and the configuration, kills the exporter, and compares every number and every alert with what the platforms know.
#
# E2E_FULL_IMAGE=1 compiles the program inside of the image's build, as users do, in a stand-in of the Rust image made from this machine's
# toolchain: some minutes more. E2E_RESTART_TO_RELOAD=1 restarts the exporter after its configuration has changed.
#
# Needs root, podman, buildah, runc, netavark, mmdebstrap, prometheus, kubectl (tests/scripts/install-helm.sh), python3-yaml.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
. tests/scripts/podman.sh
. tests/e2e/common.sh

program=$(realpath "${1:-target/release/testrun-exporter}")
image=localhost/testrun-exporter:e2e
work=$(mktemp -d)
prometheus_pid=

cleanup() {
  local status=$?
  if [ "$status" != 0 ] && [ -e "$work/play.yaml" ]; then
    say 'the exporter said at last:'
    podman_ logs --tail 40 shop-pod-0-testrun-exporter 2>&1 || true
    podman_ ps --all || true
    tail -n 5 "$work/prometheus.log" 2>/dev/null || true
  fi
  [ -z "$prometheus_pid" ] || kill "$prometheus_pid" 2>/dev/null || true
  [ ! -e "$work/play.yaml" ] || podman_ kube down "$work/play.yaml" >/dev/null 2>&1 || true
  podman_ volume rm --force testrun-exporter testrun-exporter-tokens testrun-exporter-state >/dev/null 2>&1 || true
  wait
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT

say 'the image'
tests/scripts/base-images.sh
mkdir "$work/binary"
cp "$program" "$work/binary/testrun-exporter"
revision=$(git -c safe.directory="$root" rev-parse HEAD 2>/dev/null || echo unknown)
build=(buildah_ bud --quiet --isolation chroot --build-context binary="$work/binary" --build-arg REVISION="$revision" --tag "$image")
if [ -n "${E2E_FULL_IMAGE:-}" ]; then
  tests/scripts/base-images.sh --toolchain
  # What the stand-in of the Rust image trusts is what this machine trusts.
  "${build[@]}" . >/dev/null
else
  "${build[@]}" --target prebuilt . >/dev/null
fi
inspected=$(podman_ image inspect "$image")
python3 - "$revision" "$inspected" <<'PYTHON'
import json, sys

revision, (image,) = sys.argv[1], json.loads(sys.argv[2])
config = image["Config"]
assert config["User"] == "65532:65532", config["User"]
assert config["Entrypoint"] == ["/usr/local/bin/testrun-exporter"], config
assert config["StopSignal"] in ("SIGTERM", "15"), config
assert config["Labels"]["org.opencontainers.image.revision"] == revision, config["Labels"]
print(f"  {image['Size'] / 1e6:.1f} MB, user {config['User']}, version {config['Labels']['org.opencontainers.image.version']}")
PYTHON
podman_ run --rm --network none --read-only --cap-drop ALL --security-opt no-new-privileges "$image" --version
if podman_ run --rm --network none --entrypoint /bin/sh "$image" -c true 2>/dev/null; then
  fail 'the image has a shell'
fi

say 'the pod'
read -r exporter_port shop_port media_port <<<"$(free_ports 3)"
kubectl kustomize tests/e2e/pod >"$work/rendered.yaml"
python3 tests/e2e/for_podman.py "testrun-exporter=$exporter_port" "platform=$shop_port" "platform=$media_port" <"$work/rendered.yaml" >"$work/play.yaml"
exporter=http://127.0.0.1:$exporter_port
shop=http://127.0.0.1:$shop_port
media=http://127.0.0.1:$media_port
# rotate VOLUME FILE CONTENT: as the kubelet does it. The files are links through ..data, and that link is exchanged.
rotate() {
  local directory new=..$EPOCHREALTIME
  directory=$(podman_ volume inspect --format '{{.Mountpoint}}' "$1")
  mkdir --mode=0755 "$directory/$new"
  local file
  for file in "$directory"/*; do
    cp --dereference "$file" "$directory/$new/"
  done
  printf '%s' "$3" >"$directory/$new/$2"
  chmod 0444 "$directory/$new"/*
  ln -s "$new" "$directory/..new"
  mv -T "$directory/..new" "$directory/..data"
  for file in "$directory"/*; do
    ln -sfn "..data/$(basename "$file")" "$directory/..new"
    mv -T "$directory/..new" "$file"
  done
}

podman_ kube play --start=false "$work/play.yaml" >/dev/null
# Podman before 4.4 writes a Secret's files as they stand in the manifest, encoded.
for source in shop media; do
  rotate testrun-exporter-tokens "$source" "$(cat "tests/e2e/pod/tokens/$source")"
done
before=$(now)
podman_ pod start shop-pod-0 >/dev/null
until_ok 60 'the exporter is ready' curl -sf "$exporter/-/ready"
# Ready comes with the end of the first rounds, also if they have failed, because the platforms were not there yet.
until_ok 60 'shop has been read' metric_is 'testrun_up{source="shop"}' 1
until_ok 60 'media has been read' metric_is 'testrun_up{source="media"}' 1
after=$(now)
container="shop-pod-0-testrun-exporter"
pid=$(podman_ inspect --format '{{.State.Pid}}' "$container")
confinement=$(grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$pid/status")
for words in '^Uid:.*65532' '^CapEff:.*0000000000000000' '^NoNewPrivs:.*1'; do
  grep -q "$words" <<<"$confinement" || fail "the exporter is not confined: $confinement"
done
say "confined: $(tr -s '\t\n' ' ' <<<"$confinement")"

cat >"$work/prometheus.yml" <<CONFIG
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [rules.yml, alerts.yml]
scrape_configs:
  - job_name: testrun-exporter
    static_configs: [{ targets: ['127.0.0.1:$exporter_port'] }]
CONFIG
start_prometheus "$work"
until_ok 30 'Prometheus scrapes the exporter' targets_up 1

until_ok 60 'runs of shop are counted' counted shop 1
until_ok 60 'runs of media are counted' counted media 1

say 'a wrong token is rotated in'
rotate testrun-exporter-tokens shop revoked-token
until_ok 60 'the platform refuses it' metric_is 'testrun_up{source="shop"}' 0
until_ok 60 'TestrunSourceUnauthorized fires' firing TestrunSourceUnauthorized shop
until_ok 60 'TestrunSourceDown fires' firing TestrunSourceDown shop
silent TestrunSourceDown media || fail 'the other source is called down too'
metric_is 'testrun_up{source="media"}' 1 || fail 'the other source is down too'
say 'the right token is rotated in'
rotate testrun-exporter-tokens shop "$(cat tests/e2e/pod/tokens/shop)"
until_ok 90 'the platform takes it' metric_is 'testrun_up{source="shop"}' 1

say 'the configuration is rotated'
rotate testrun-exporter testrun-exporter.yaml "$(sed 's/poll_interval: 3s/poll_interval: 2s/' tests/e2e/pod/testrun-exporter.yaml)"
if [ -n "${E2E_RESTART_TO_RELOAD:-}" ]; then
  podman_ restart --time 5 "$container" >/dev/null
fi
until_ok 90 'the new configuration is in use' metric_is 'testrun_exporter_poll_interval_seconds{source="shop"}' 2

say 'the exporter is killed'
pid=$(podman_ inspect --format '{{.State.Pid}}' "$container")
kill -KILL "$pid"
restarted() {
  local now
  now=$(podman_ inspect --format '{{.State.Pid}}' "$container")
  [ "$now" != "$pid" ] && [ "$now" != 0 ]
}
until_ok 30 'it is started again' restarted
until_ok 30 'it is ready again' curl -sf "$exporter/-/ready"
metric_is 'testrun_exporter_ledger_restored{source="shop"}' 1 || fail 'its counters did not survive'

# The truth for whoever first looked before the pod was played, and for whoever looked when the exporter was ready. They differ
# if a run ended just between the two; then either may be what the exporter has seen.
ended() { verdict "$before" || verdict "$after"; }
until_ok 240 'every number and every alert is what the platforms say' ended
verdict "$before" || verdict "$after"
for alert in SourceDown SourceStale SourceUnauthorized SourceThrottled ConfigReloadFailed LedgerUnhealthy SeriesFolded ExporterAbsent QueueStuck; do
  silent "Testrun$alert" || fail "Testrun$alert fires"
done
# The judge can say no: for whoever looks now for the first time, nothing has been counted.
status=0
verdict "$(now)" >"$work/no" || status=$?
[ "$status" = 1 ] || fail "the verdict on wrong numbers is $status"
say 'passed'
