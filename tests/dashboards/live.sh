#!/usr/bin/env bash
# live.sh [PROGRAM]
#
# The simulated platforms, the exporter on them and a real Prometheus; then every query of every panel of every dashboard must bring
# something. At last two broken dashboards, which must be found out. Needs prometheus and Python.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
. tests/e2e/common.sh

program=$(realpath "${1:-target/release/testrun-exporter}")
work=$(mktemp -d)
pids=()
cleanup() {
  local status=$?
  [ "$status" = 0 ] || tail -n 20 "$work"/*.log >&2 || true
  kill "${pids[@]}" "${prometheus_pid:-}" 2>/dev/null || true
  wait
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT

# The second platform listens on the next port.
until read -r exporter_port shop_port <<<"$(free_ports 2)" && python3 -c 'import socket, sys; socket.create_server(("127.0.0.1", int(sys.argv[1]) + 1))' "$shop_port"; do :; done
exporter=http://127.0.0.1:$exporter_port
"$program" simulate --listen "127.0.0.1:$shop_port" --seed 42 >"$work/simulate.log" 2>&1 &
pids+=($!)
sed -e "s/10956/$shop_port/; s/10957/$((shop_port + 1))/; s|/etc/testrun-exporter/tokens|$root/tests/e2e/pod/tokens|" \
  tests/e2e/pod/testrun-exporter.yaml >"$work/testrun-exporter.yaml"
printf 'state: { directory: %s }\n' "$work/state" >>"$work/testrun-exporter.yaml"
until_ok 20 'the platforms listen' curl -s -o "$work/platform" "http://127.0.0.1:$shop_port/-/truth"
"$program" --config.file "$work/testrun-exporter.yaml" --web.listen-address "127.0.0.1:$exporter_port" >"$work/exporter.log" 2>&1 &
pids+=($!)
cat >"$work/prometheus.yml" <<CONFIG
global: { scrape_interval: 2s, evaluation_interval: 2s }
rule_files: [rules.yml, alerts.yml]
scrape_configs:
  - job_name: testrun-exporter
    static_configs: [{ targets: ['127.0.0.1:$exporter_port'] }]
CONFIG
start_prometheus "$work"

# A world of chance: the last thing to happen is a flaky result in one environment.
until_ok 300 'every query of every panel brings something' python3 tests/dashboards/check.py query "$prometheus" deploy/grafana/*.json

# What the recording rules make, under the names that documents and alerts use.
recorded() {
  local rule
  while read -r rule; do
    curl -sf "$prometheus/api/v1/query" --data-urlencode "query=$rule" | grep -q '"value"' || { echo "$rule has no value"; return 1; }
  done < <(sed -n 's/^ *- record: //p' deploy/prometheus/rules.yml)
}
until_ok 60 'every recording rule brings something' recorded

broken() { ! python3 tests/dashboards/check.py query "$prometheus" "$1" >"$work/said" && grep -q "$2" "$work/said"; }
sed 's/sum(testrun_up{/sum(testrun_up{nobody=\\"has it\\",/' deploy/grafana/overview.json >"$work/empty.json"
broken "$work/empty.json" 'Sources read A: nothing' || fail 'an empty panel was not seen'
sed 's/sum(testrun_up{/sum(testrun_up{{/' deploy/grafana/overview.json >"$work/wrong.json"
broken "$work/wrong.json" 'Sources read A: .*parse error' || fail 'a query that is an error was not seen'
say 'passed'
