#!/usr/bin/env bash
# kubernetes.sh IMAGE [APPLICATION_IMAGE]
#
# The sidecar on whatever cluster `kubectl` points at: applies deploy/kubernetes/sidecar with simulated platforms in a namespace of its
# own, waits for Ready, scrapes it with a Prometheus on this machine that finds it through kubernetes_sd_configs, rotates
# the Secret and the ConfigMap, kills the exporter, compares every number and every alert with what the platforms know, and
# deletes everything. The last line is the verdict.
#
# IMAGE is the exporter's, as the nodes can get it. APPLICATION_IMAGE (docker.io/library/busybox:1.36) needs /bin/sleep and pkill. Pods
# are reached through the API server, so no route to their network is needed. Needs kubectl 1.21 or newer (with components), prometheus, python3,
# and the right to create a namespace and to use pods/proxy and pods/exec in it.
#
# E2E_NATIVE=1 deploys a native sidecar (Kubernetes 1.29 or newer). E2E_KEEP=1 leaves the namespace. E2E_RESTART_TO_RELOAD=1 restarts
# the exporter after the ConfigMap has changed. PROMETHEUS names another server than the one in PATH; it must have been built with Kubernetes'
# discovery, which Debian's 2.42 was not: tests/scripts/install-prometheus.sh brings one that was, and where it has, it is taken.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
. tests/e2e/common.sh

image=${1:?usage: kubernetes.sh IMAGE [APPLICATION_IMAGE]}
application=${2:-docker.io/library/busybox:1.36}
namespace=testrun-exporter-e2e-$$
work=$(mktemp -d)
prometheus_pid='' proxy_pid='' created=''

k() { kubectl --namespace "$namespace" "$@"; }

cleanup() {
  local status=$?
  if [ "$status" != 0 ] && [ -n "$created" ]; then
    k get pods --output wide || true
    k describe pods | tail -n 40 || true
    k logs deployment/shop --container testrun-exporter --tail 40 || true
    tail -n 5 "$work/prometheus.log" 2>/dev/null || true
  fi
  kill ${prometheus_pid:+"$prometheus_pid"} 2>/dev/null || true
  if [ -n "$created" ] && [ -z "${E2E_KEEP:-}" ]; then
    kubectl delete namespace "$namespace" --wait=false >/dev/null || true
  fi
  kill ${proxy_pid:+"$proxy_pid"} 2>/dev/null || true
  wait
  rm -rf "$work"
  [ "$status" = 0 ] || say 'FAILED'
  exit "$status"
}
trap cleanup EXIT

if [ -z "${PROMETHEUS:-}" ] && [ -x target/ci/prometheus-3/usr/bin/prometheus ]; then
  PROMETHEUS=$root/target/ci/prometheus-3/usr/bin/prometheus
fi
grep -q discovery/kubernetes -- "$(command -v "${PROMETHEUS:-prometheus}")" || fail "${PROMETHEUS:-prometheus} knows no kubernetes_sd_configs"
kubectl version 2>/dev/null | grep -i server || fail 'kubectl reaches no cluster'
kubectl create namespace "$namespace" >/dev/null
created=1
# Where the cluster knows it, it holds the pod to the strictest standard.
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null

cp -r tests/e2e "$work/e2e"
mkdir -p "$work/deploy"
cp -r deploy/kubernetes "$work/deploy/"
# The overlay's paths are those of the repository: tests/e2e beside deploy.
mkdir "$work/tests"
mv "$work/e2e" "$work/tests/e2e"
overlay=$work/tests/e2e/kubernetes
if [ -n "${E2E_NATIVE:-}" ]; then
  printf 'components:\n  - ../../../deploy/kubernetes/components/native\n' >>"$overlay/kustomization.yaml"
fi
render() { kubectl kustomize "$overlay" | sed "s|image: localhost/testrun-exporter:e2e|image: $image|; s|image: application\$|image: $application|"; }

say "the pod, in namespace $namespace"
before=$(now)
render | k apply --filename - >/dev/null
k wait --for=condition=Available --timeout=180s deployment/shop >/dev/null || fail 'the pod does not become Ready'
pod=$(k get pods --selector app.kubernetes.io/name=shop --output jsonpath='{.items[0].metadata.name}')
say "$pod is Ready"

read -r proxy_port <<<"$(free_ports 1)"
kubectl proxy --port "$proxy_port" >"$work/proxy.log" 2>&1 &
proxy_pid=$!
until_ok 20 'the API server is reached' curl -sf "http://127.0.0.1:$proxy_port/version"
pods=http://127.0.0.1:$proxy_port/api/v1/namespaces/$namespace/pods
exporter=$pods/$pod:10955/proxy
shop=$pods/$pod:10956/proxy
media=$pods/$pod:10957/proxy
until_ok 30 'the exporter answers' curl -sf "$exporter/-/ready"
until_ok 60 'shop has been read' metric_is 'testrun_up{source="shop"}' 1
until_ok 60 'media has been read' metric_is 'testrun_up{source="media"}' 1
after=$(now)

# As deploy/kubernetes/monitoring/prometheus-scrape.yaml, but by way of the API server.
cat >"$work/prometheus.yml" <<CONFIG
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [rules.yml, alerts.yml]
scrape_configs:
  - job_name: testrun-exporter-pods
    kubernetes_sd_configs:
      - role: pod
        api_server: http://127.0.0.1:$proxy_port
        namespaces: { names: [$namespace] }
    relabel_configs:
      - source_labels: [__meta_kubernetes_pod_container_name, __meta_kubernetes_pod_container_port_name]
        regex: testrun-exporter;metrics
        action: keep
      - source_labels: [__meta_kubernetes_namespace]
        target_label: namespace
      - source_labels: [__meta_kubernetes_pod_name]
        target_label: pod
      - source_labels: [__address__]
        target_label: instance
      - source_labels: [__meta_kubernetes_pod_name, __meta_kubernetes_pod_container_port_number]
        separator: ':'
        regex: (.+)
        target_label: __metrics_path__
        replacement: /api/v1/namespaces/$namespace/pods/\$1/proxy/metrics
      - target_label: __address__
        replacement: 127.0.0.1:$proxy_port
CONFIG
start_prometheus "$work"
until_ok 60 'Prometheus has found the exporter and scrapes it' targets_up 1
until_ok 90 'runs of shop are counted' counted shop 1
until_ok 90 'runs of media are counted' counted media 1

# The kubelet brings changed files when it syncs: within a minute and a half, usually.
say 'a wrong token is rotated in'
printf revoked-token >"$overlay/../pod/tokens/shop"
render | k apply --filename - >/dev/null
until_ok 180 'the platform refuses it' metric_is 'testrun_up{source="shop"}' 0
until_ok 60 'TestrunSourceUnauthorized fires' firing TestrunSourceUnauthorized shop
silent TestrunSourceDown media || fail 'the other source is called down too'
k wait --for=condition=Ready --timeout=5s "pod/$pod" >/dev/null || fail 'a refused token has taken the pod out of service'
say 'the right token is rotated in'
cp tests/e2e/pod/tokens/shop "$overlay/../pod/tokens/shop"
render | k apply --filename - >/dev/null
until_ok 240 'the platform takes it' metric_is 'testrun_up{source="shop"}' 1

say 'the configuration is rotated'
sed -i 's/poll_interval: 3s/poll_interval: 2s/' "$overlay/../pod/testrun-exporter.yaml"
render | k apply --filename - >/dev/null
signal() { k exec "$pod" --container app -- pkill "-$1" -f 'testrun-exporter --config[.]file'; }
if [ -n "${E2E_RESTART_TO_RELOAD:-}" ]; then
  reloaded() {
    signal TERM || true
    sleep 10
    metric_is 'testrun_exporter_poll_interval_seconds{source="shop"}' 2
  }
else
  reloaded() { metric_is 'testrun_exporter_poll_interval_seconds{source="shop"}' 2; }
fi
until_ok 240 'the new configuration is in use' reloaded

restarts() {
  k get pod "$pod" --output jsonpath='{range .status.containerStatuses[*]}{.name}={.restartCount}{"\n"}{end}{range .status.initContainerStatuses[*]}{.name}={.restartCount}{"\n"}{end}' |
    sed -n 's/^testrun-exporter=//p'
}
restarted() { [ "$(restarts)" -gt "$had" ]; }
say 'the exporter is killed'
had=$(restarts)
signal KILL
until_ok 120 'it is started again' restarted
until_ok 120 'it is ready again' curl -sf "$exporter/-/ready"
metric_is 'testrun_exporter_ledger_restored{source="shop"}' 1 || fail 'its counters did not survive'

ended() { verdict "$before" || verdict "$after"; }
until_ok 300 'every number and every alert is what the platforms say' ended
ended

say 'everything is deleted'
started=$SECONDS
k delete deployment shop --wait=true --timeout=60s >/dev/null
until_ok 60 'the pod is gone' sh -c "! kubectl --namespace $namespace get pod $pod >/dev/null 2>&1"
say "the pod was gone after $((SECONDS - started)) s"
say 'PASSED'
