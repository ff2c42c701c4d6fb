#!/bin/sh
# CPU per gzip scrape of other servers with the bench's own 100 000 series: Debian's pushgateway, and client_golang's GaugeVec.
# Compare with what `cargo bench --bench scrape` prints of ours, on the same machine and at the same time.
# Needs: apt-get install curl prometheus-pushgateway golang-go golang-github-prometheus-client-golang-dev
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'kill $servers 2>/dev/null; rm -rf "$work"' EXIT
servers=
scrapes=${1:-5}

# With this set, the bench writes its text and does nothing else.
cargo bench --no-run --quiet --bench scrape
bench=$(find target/release/deps -name 'scrape-*' ! -name '*.d' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
SCRAPE_TEXT="$work/text" "$bench"
GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$work/cache" go build -o "$work/vec" benches/peers/vec.go

prometheus-pushgateway --web.listen-address=127.0.0.1:19091 --persistence.file= --push.disable-consistency-check 2>/dev/null &
pushgateway=$!
"$work/vec" "$work/text" 127.0.0.1:19092 &
vec=$!
servers="$pushgateway $vec"

until curl -sf -o /dev/null http://127.0.0.1:19091/-/ready && curl -sf -o /dev/null http://127.0.0.1:19092/metrics; do sleep 1; done
curl -sf --data-binary "@$work/text" http://127.0.0.1:19091/metrics/job/bench

# User and system time of a process, in ticks of 10 ms.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

measure() { # name, pid, port
    before=$(ticks "$2")
    count=0
    while [ "$count" -lt "$scrapes" ]; do
        bytes=$(curl -s -H 'Accept-Encoding: gzip' -o /dev/null -w '%{size_download}' "http://127.0.0.1:$3/metrics")
        count=$((count + 1))
    done
    after=$(ticks "$2")
    echo "$1: $(((after - before) * 10 / scrapes)) ms of CPU per scrape, $bytes bytes"
}
# In turns, so that a busy machine is busy for both.
for _ in 1 2 3; do
    measure "pushgateway" "$pushgateway" 19091
    measure "client_golang GaugeVec" "$vec" 19092
done
