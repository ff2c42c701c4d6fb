#!/usr/bin/env bash
# screenshot.sh [DIRECTORY]
#
# Takes the pictures of the landing page anew: the exporter's own demo in a real Chromium (Debian: chromium), on a desktop and on a
# phone, light and dark. DIRECTORY (docs/images unless told otherwise) gets landing.png, the one of the README; the other
# three are for a look only and go to target/screenshots.
set -euo pipefail
cd "$(dirname "$0")/../.."

directory=${1:-docs/images}
looks=target/screenshots
address=127.0.0.1:18955
mkdir -p "$directory" "$looks"
profile=$(mktemp -d)
cargo build --release --locked
"${CARGO_TARGET_DIR:-target}/release/testrun-exporter" demo --web.listen-address "$address" >"$looks/demo.log" 2>&1 &
demo=$!
# shellcheck disable=SC2064 # this very process, now
trap "kill $demo; rm -rf '$profile'" EXIT
for _ in $(seq 60); do
  curl -sf -o /dev/null "http://$address/-/ready" && break
  sleep 1
done
# Some rounds, so that there is something to see.
sleep 12

# picture FILE WIDTH HEIGHT SCHEME: 0 is dark, 1 is light.
picture() {
  chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
    --blink-settings=preferredColorScheme="$4" --window-size="$2,$3" --screenshot="$1" "http://$address/" >>"$looks/demo.log" 2>&1
  [ -s "$1" ] || { echo "no picture: $1" >&2; exit 1; }
}

picture "$directory/landing.png" 1100 560 1
picture "$looks/desktop-dark.png" 1100 560 0
picture "$looks/phone-light.png" 390 1250 1
picture "$looks/phone-dark.png" 390 1250 0
size=$(stat --format=%s "$directory/landing.png")
[ "$size" -lt 150000 ] || { echo "landing.png is too large: $size bytes" >&2; exit 1; }
