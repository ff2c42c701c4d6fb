#!/bin/sh
# CPU per gzip scrape of other servers with the bench's own 100 000 series, beside ours: Debian's pushgateway, and
# client_golang's GaugeVec. benches/peers.sh [SCRAPES]: so many of the others' in each of five rounds.
# Needs: apt-get install curl prometheus-pushgateway golang-go golang-github-prometheus-client-golang-dev
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'kill $servers 2>/dev/null; rm -rf "$work"' EXIT
servers=
scrapes=${1:-5}
# Ours are counted in ticks of 10 ms, too.
our_scrapes=2000

# With these set, the bench writes its text, or serves it, and does nothing else.
cargo bench --no-run --quiet --bench scrape
bench=$(find target/release/deps -name 'scrape-*' ! -name '*.d' -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
SCRAPE_TEXT="$work/text" "$bench"
GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$work/cache" go build -o "$work/vec" benches/peers/vec.go

prometheus-pushgateway --web.listen-address=127.0.0.1:19091 --persistence.file= --push.disable-consistency-check 2>/dev/null &
pushgateway=$!
servers=$pushgateway
"$work/vec" "$work/text" 127.0.0.1:19092 &
vec=$!
servers="$servers $vec"
SCRAPE_SERVE=127.0.0.1:19093 "$bench" &
ours=$!
servers="$servers $ours"

for address in 19091/-/ready 19092/metrics 19093/metrics; do
    curl -sf --retry 60 --retry-delay 1 --retry-connrefused -o /dev/null "http://127.0.0.1:$address"
done
curl -sf --data-binary "@$work/text" http://127.0.0.1:19091/metrics/job/bench

# User and system time of a process, in ticks of 10 ms.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# Sets `took`, in microseconds, and `bytes`. All scrapes are made over one connection.
measure() { # pid, port, scrapes
    before=$(ticks "$1")
    bytes=$(curl -s -H 'Accept-Encoding: gzip' -o /dev/null -w '%{size_download}\n' "http://127.0.0.1:$2/metrics?[1-$3]" | tail -1)
    took=$((($(ticks "$1") - before) * 10000 / $3))
}
# In turns, so that a busy machine is busy for all.
for _ in 1 2 3 4 5; do
    measure "$ours" 19093 "$our_scrapes"
    our_time=$took our_bytes=$bytes
    echo "ours: $our_time us of CPU per scrape, $our_bytes bytes"
    for other in "pushgateway $pushgateway 19091" "GaugeVec $vec 19092"; do
        # shellcheck disable=SC2086
        set -- $other
        measure "$2" "$3" "$scrapes"
        awk -v name="$1" -v took="$took" -v ours="$our_time" -v bytes="$bytes" -v our_bytes="$our_bytes" 'BEGIN {
            printf "  %s: %.0f ms, %.0f times ours; %d bytes, ours is %.2f of it\n", name, took / 1000, took / ours, bytes, our_bytes / bytes }'
    done
done
