#!/usr/bin/env bash
# draw.sh PROMETHEUS DIRECTORY [NAME[:ROWS]]...
#
# Pictures of the dashboards, DIRECTORY/NAME.png, drawn by Grafana's own components from the answers of a real Prometheus. With
# ROWS, the first rows of the grid only. For the README and for looking at what was changed; not a part of CI, because the
# packages are 650 MB. Needs npm and chromium; DRAW_WORK keeps the packages for the next time.
set -euo pipefail
cd "$(dirname "$0")/../.."

prometheus=${1:?usage: draw.sh PROMETHEUS DIRECTORY [NAME[:ROWS]]...}
pictures=$(realpath "${2:?a directory for the pictures}")
shift 2
[ $# -gt 0 ] || set -- overview suite case exporter
work=${DRAW_WORK:-$(mktemp -d)}
mkdir -p "$work" "$pictures"

python3 tests/dashboards/check.py results "$prometheus" "$work/results.json" deploy/grafana/*.json
cp tests/dashboards/draw.tsx "$work/"
(
  cd "$work"
  if [ ! -d node_modules/@grafana/ui ]; then
    npm init -y >/dev/null
    npm install --no-audit --no-fund --legacy-peer-deps react@18 react-dom@18 rxjs@7 @grafana/ui@12 @grafana/data@12 @grafana/schema@12 esbuild
  fi
  npx esbuild draw.tsx --bundle --minify --outfile=draw.js --jsx=transform --define:process.env.NODE_ENV='"production"' --log-level=warning \
    --loader:.svg=dataurl --loader:.png=dataurl --loader:.woff2=dataurl --loader:.woff=dataurl --loader:.ttf=dataurl
  echo '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="draw.css"><body style="margin:0"><div id="root"></div><script src="draw.js"></script>' >draw.html
  for board in "$@"; do
    rows=99
    case $board in *:*) rows=${board#*:} board=${board%:*} ;; esac
    height=$(python3 -c '
import json, sys
panels = [one["panel"]["gridPos"] for one in json.load(open("results.json"))["boards"][sys.argv[1]]]
print(8 + 38 * max(place["y"] + place["h"] for place in panels if place["y"] < int(sys.argv[2])))' "$board" "$rows")
    chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files --window-size="1208,$height" \
      --virtual-time-budget=8000 --screenshot="$pictures/$board.png" "file://$work/draw.html?board=$board&rows=$rows" 2>chromium.log
    ! command -v pngquant >/dev/null || pngquant --force --ext .png --strip 64 "$pictures/$board.png"
    echo "$pictures/$board.png"
  done
)
