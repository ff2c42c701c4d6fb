# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the variables are those of the script that sources this
# To be sourced by the scripts beside it.

say() { printf '%(%H:%M:%S)T %s\n' -1 "$*"; }

fail() {
  say "FAILED: $*" >&2
  exit 1
}

# until_ok SECONDS WHAT COMMAND...: until it succeeds. What it said last is shown if it never does.
until_ok() {
  local deadline=$((SECONDS + $1)) what=$2 said
  shift 2
  until said=$("$@" 2>&1); do
    [ "$SECONDS" -lt "$deadline" ] || fail "$what: $said"
    sleep 0.5
  done
  say "$what"
}

# metric SERIES: its value in the exporter's own words; fails if it is not there.
metric() {
  curl -sf --max-time 5 "$exporter/metrics" | awk -v series="$1" 'index($0, series " ") == 1 { print $NF; found = 1 } END { exit !found }'
}

# metric_is SERIES VALUE
metric_is() {
  local value
  value=$(metric "$1") || { echo "$1 is not there"; return 1; }
  awk -v a="$value" -v b="$2" 'BEGIN { exit a != b }' || { echo "$1 is $value, not $2"; return 1; }
}

# metric_above SERIES VALUE
metric_above() {
  local value
  value=$(metric "$1") || { echo "$1 is not there"; return 1; }
  awk -v a="$value" -v b="$2" 'BEGIN { exit !(a > b) }' || { echo "$1 is $value, not above $2"; return 1; }
}

# counted SOURCE NUMBER: at least so many of its runs have been counted.
counted() {
  curl -sf --max-time 5 "$exporter/metrics" | awk -v source="source=\"$1\"" -v wanted="$2" '
    /^testrun_runs_total/ && index($0, source) { sum += $NF }
    END { print sum + 0; exit sum < wanted }'
}

# firing ALERT [SOURCE]: it fires, in the words of Prometheus.
firing() {
  curl -sf --max-time 5 "$prometheus/api/v1/alerts" | python3 -c '
import json, sys
wanted = sys.argv[1:]
alerts = [alert for alert in json.load(sys.stdin)["data"]["alerts"] if alert["state"] == "firing"]
found = {(alert["labels"]["alertname"], alert["labels"].get("source", "")) for alert in alerts}
print(sorted(found))
sys.exit(not any(list(pair)[: len(wanted)] == wanted for pair in found))' "$@"
}

silent() {
  local said
  said=$(curl -sf --max-time 5 "$prometheus/api/v1/alerts") || return 1
  ! firing "$@" >/dev/null || { echo "$*: fires"; return 1; }
  [ -n "$said" ]
}

# up_is NUMBER: so many targets are up for Prometheus.
targets_up() {
  curl -sf --max-time 5 "$prometheus/api/v1/query" --data-urlencode 'query=sum(up)' | grep -q "\"$1\"\\]"
}

# rules DIRECTORY: the rules and alerts with the patience of a test instead of an operator's. The expressions stay.
quick_rules() {
  local file
  for file in rules alerts; do
    sed -E 's/^( *)for: .*/\1for: 2s/; s/^( *)interval: .*/\1interval: 1s/' "$root/deploy/prometheus/$file.yml" >"$1/$file.yml"
  done
}

# start_prometheus DIRECTORY: with DIRECTORY/prometheus.yml, on a port of its own; sets `prometheus` and `prometheus_pid`.
start_prometheus() {
  local port
  port=$(free_ports 1)
  quick_rules "$1"
  (cd "$1" && exec "${PROMETHEUS:-prometheus}" --config.file=prometheus.yml --storage.tsdb.path=data \
    --web.listen-address="127.0.0.1:$port" >prometheus.log 2>&1) &
  prometheus_pid=$!
  prometheus=http://127.0.0.1:$port
  until_ok 30 'Prometheus is ready' curl -sf "$prometheus/-/ready"
}

free_ports() {
  python3 -c '
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in sockets))' "$1"
}

# verdict SINCE: ends with 3 as long as the platforms live.
verdict() {
  python3 "$root/tests/e2e/verdict.py" "$1" "$exporter" "shop=empirical=$shop/-/truth" "media=sample_platform=$media/-/truth" "$prometheus"
}

now() { date --utc +%Y-%m-%dT%H:%M:%S.%3NZ; }
