#!/usr/bin/env bash
# check.sh WORK [PROGRAM]
#
# Everything in deploy/ that a machine can judge without a cluster: charts are linted and rendered with each of their ci/ values by two
# majors of helm, kustomizations are built, all of it is held to the schemas of Kubernetes, of the Prometheus operator and of
# Grafana, the chart and kustomize to each other, and rendered configurations to PROGRAM (target/release/testrun-exporter).
# Then each check is shown something broken.
#
# Needs helm, helm3, kubectl (tests/scripts/install-helm.sh), kubernetes-validate and hadolint (pip), npm, promtool, python3-yaml.
# WORK keeps the npm packages.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
mkdir -p "${1:?usage: check.sh WORK [PROGRAM]}"
work=$(realpath "$1")
program=$(realpath "${2:-target/release/testrun-exporter}")
out=$work/rendered
rm -rf "$out"
mkdir -p "$out/charts" "$out/kustomize"

fail() { echo "FAILED: $*" >&2; exit 1; }

# quiet COMMAND...: what it says only if it fails.
quiet() { "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2; fail "$*"; }; }

# refused WORDS COMMAND...: the command must fail, and say the words.
refused() {
  local words=$1
  shift
  if "$@" >"$work/said" 2>&1; then fail "not refused: $*"; fi
  grep -qE "$words" "$work/said" || { cat "$work/said" >&2; fail "refused for another reason: $*"; }
  count=$((count + 1))
}
count=0

if ! cmp -s tests/manifests/package.json "$work/npm/package.json"; then
  rm -rf "$work/npm"
  mkdir "$work/npm"
  cp tests/manifests/package.json "$work/npm/"
  (cd "$work/npm" && npm install --no-audit --no-fund --ignore-scripts --silent)
fi
cp tests/manifests/validate.mjs "$work/npm/"
schemas() { (cd "$work/npm" && node validate.mjs "$@"); }

quiet deploy/generate.sh --check
quiet python3 deploy/grafana/dashboards.py --check

for helm in helm helm3; do
  for chart in testrun-exporter examples/shop; do
    for values in deploy/helm/"$chart"/ci/*.yaml; do
      name=$(basename "$chart")-$(basename "$values" .yaml)
      quiet "$helm" lint --strict --quiet --values "$values" "deploy/helm/$chart"
      "$helm" template rel "deploy/helm/$chart" --namespace tests --values "$values" --kube-version 1.20.0 \
        >"$out/charts/$name.$helm.yaml" 2>"$work/said" || { cat "$work/said" >&2; fail "$helm $chart $values"; }
    done
  done
done
helm template rel deploy/helm/examples/shop >"$out/charts/shop.helm.yaml" 2>/dev/null
for file in "$out"/charts/*.helm.yaml; do
  python3 - "$file" "${file%.helm.yaml}.helm3.yaml" <<'PYTHON' || fail 'two versions of helm make different things of a chart'
import pathlib, sys, yaml
if pathlib.Path(sys.argv[2]).exists():
    key = lambda one: (one["kind"], one["metadata"]["name"])
    one, other = (sorted(filter(None, yaml.safe_load_all(open(path))), key=key) for path in sys.argv[1:])
    sys.exit(one != other)
PYTHON
done
quiet helm package deploy/helm/testrun-exporter --destination "$work"
helm template rel "$work"/testrun-exporter-*.tgz --values deploy/helm/testrun-exporter/ci/everything-values.yaml >"$work/packaged.yaml"
for words in 'alert: TestrunCaseFlaky' testrun-overview.json; do
  grep -q "$words" "$work/packaged.yaml" || fail "the packaged chart has lost $words"
done

for directory in standalone sidecar sidecar-native monitoring; do
  kubectl kustomize "deploy/kubernetes/$directory" >"$out/kustomize/$directory.yaml"
done
kubectl kustomize tests/e2e/pod >"$out/kustomize/e2e.yaml"
mkdir "$work/claim" 2>/dev/null || true
printf 'resources: [../../%s/standalone]\ncomponents: [../../%s/components/claim]\n' "$(realpath --relative-to "$work/.." deploy/kubernetes)"{,} >"$work/claim/kustomization.yaml"
kubectl kustomize --load-restrictor LoadRestrictionsNone "$work/claim" >"$out/kustomize/claim.yaml"

quiet kubernetes-validate --strict --quiet --no-warn "$out"/charts/*.yaml "$out"/kustomize/*.yaml deploy/kubernetes/standalone/[ns]*.yaml
# The oldest that can be had. Native sidecars came with 1.28.
for file in "$out"/charts/*.yaml "$out"/kustomize/*.yaml; do
  case $file in *native*) continue ;; esac
  quiet kubernetes-validate --strict --quiet --no-warn --kubernetes-version 1.25 "$file"
done
schemas "$out"/charts/*.helm.yaml "$out"/kustomize/*.yaml "$root"/deploy/kubernetes/monitoring/*.yaml "$root"/deploy/kubernetes/standalone/*.yaml \
  "$root"/deploy/grafana/*.json
helm template testrun-exporter deploy/helm/testrun-exporter --values deploy/helm/testrun-exporter/ci/minimal-values.yaml >"$work/chart.yaml" 2>/dev/null
python3 tests/manifests/same.py "$work/chart.yaml" "$out/kustomize/standalone.yaml"

# The configurations, as the program sees them. Tokens are somewhere else here.
echo token >"$work/token"
for file in "$out"/charts/*.helm.yaml "$out"/kustomize/*.yaml; do
  python3 - "$file" "$work/token" >"$work/config.yaml" <<'PYTHON'
import re, sys, yaml
for one in yaml.safe_load_all(open(sys.argv[1])):
    if one and one["kind"] == "ConfigMap" and "testrun-exporter.yaml" in one["data"]:
        print(re.sub(r"token_file: \S+", "token_file: " + sys.argv[2], one["data"]["testrun-exporter.yaml"]))
PYTHON
  [ ! -s "$work/config.yaml" ] || quiet "$program" check-config --config.file "$work/config.yaml"
done

python3 tests/dashboards/check.py lint deploy/grafana/*.json

# The files that the image's layer of dependencies makes up are all that the manifest names: cargo sees the same targets there as here.
targets() {
  cargo metadata --no-deps --locked --offline --format-version 1 | python3 -c '
import json, sys
targets = json.load(sys.stdin)["packages"][0]["targets"]
print(sorted(target["name"] for target in targets if target["kind"][0] in ("bin", "lib", "bench", "test")))'
}
layer() {
  rm -rf "$work/layer"
  mkdir "$work/layer"
  cp Cargo.toml Cargo.lock "$work/layer/"
  sed -n '/^RUN mkdir -p src/,/cargo build/p' "${1:-Dockerfile}" | sed -e 's/^RUN //' -e 's/cargo build .*/true/' >"$work/layer.sh"
  (cd "$work/layer" && sh -eu "$work/layer.sh")
  local here there
  here=$(targets)
  there=$(cd "$work/layer" && targets)
  [ "$here" = "$there" ] || { echo "the layer has other targets: $there"; return 1; }
}
quiet layer

# Each check, shown something broken.
broken=tests/manifests/broken
for helm in helm helm3; do
  for values in deploy/helm/testrun-exporter/ci/refused/*.yaml; do
    refused 'dditional propert|nothing to read|/?config.sources.a|image.digest' \
      "$helm" template rel deploy/helm/testrun-exporter --values "$values"
  done
done
refused 'selectors' kubernetes-validate --strict "$broken/kubernetes-unknown-key.yaml"
refused 'one' kubernetes-validate --strict "$broken/kubernetes-wrong-type.yaml"
refused 'restartPolicy' kubernetes-validate --strict --kubernetes-version 1.25 "$out/kustomize/sidecar-native.yaml"
refused 'intervall' schemas "$root/$broken/operator-unknown-key.yaml"
refused 'interval must match pattern' schemas "$root/$broken/operator-wrong-duration.yaml"
refused "required property 'expr'" schemas "$root/$broken/operator-rule-without-expression.yaml"
refused 'no kind ScrapeConfig' schemas "$root/$broken/operator-no-such-kind.yaml"
refused 'titel' schemas "$root/$broken/dashboard-unknown-key.json"
refused 'schemaVersion' schemas "$root/$broken/dashboard-wrong-type.json"
sed 's/readOnlyRootFilesystem: true/readOnlyRootFilesystem: false/' "$out/kustomize/standalone.yaml" >"$work/other.yaml"
refused 'readOnlyRootFilesystem' python3 tests/manifests/same.py "$work/chart.yaml" "$work/other.yaml"
printf 'sources: {a: {kind: empirical}}\n' >"$work/config.yaml"
refused 'base_url' "$program" check-config --config.file "$work/config.yaml"
sed 's|touch "benches/|echo "benches/|' Dockerfile >"$work/Dockerfile.broken"
refused 'other targets' layer "$work/Dockerfile.broken"
refused 'DL3003|DL3008' hadolint "$broken/Dockerfile"
refused 'parse error|unexpected' promtool check rules "$broken/alerts.yml"
refused 'FAILED' promtool test rules "$broken/alerts_test.yml"
quiet python3 tests/dashboards/check.py self-test deploy/grafana/*.json
cp -r deploy "$work/deploy"
echo '# by hand' >>"$work/deploy/kubernetes/components/exporter/exporter.yaml"
refused 'by hand' "$work/deploy/generate.sh" --check
rm -rf "$work/deploy"
echo "$count broken inputs were refused"
