{{- /*
  All take a dict: `exporter`, the values of this library below the user's chart, and `name`, what the ConfigMap is called.

    containers:
      {{- include "testrun-exporter.container" (dict "exporter" .Values.exporter "name" "shop-exporter" "version" "0.1.0") | nindent 8 }}
    volumes:
      {{- include "testrun-exporter.volumes" (dict "exporter" .Values.exporter "name" "shop-exporter") | nindent 8 }}

  As a native sidecar (Kubernetes 1.29 or newer) below initContainers, with "native" true. The pod's labels should have
  testrun-exporter: "true", by which the monitors find it.
*/}}

{{- define "testrun-exporter.image" -}}
{{- $image := .exporter.image -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .version }}{{ end }}
{{- end }}

{{- define "testrun-exporter.configmap-name" -}}
{{ .exporter.existingConfigMap | default .name }}
{{- end }}

{{- define "testrun-exporter.config" -}}
{{- if and (not .exporter.existingConfigMap) (not .exporter.config.sources) }}
{{- fail "the exporter has nothing to read: set config.sources or existingConfigMap" }}
{{- end -}}
testrun-exporter.yaml: |
  {{- toYaml .exporter.config | nindent 2 }}
{{- end }}

{{- define "testrun-exporter.probe" -}}
{{- if eq .web.probe "tcp" -}}
tcpSocket:
  port: metrics
{{- else -}}
httpGet:
  path: {{ .path }}
  port: metrics
  {{- if ne .web.scheme "HTTP" }}
  scheme: {{ .web.scheme }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "testrun-exporter.container" -}}
{{- $exporter := .exporter -}}
- name: testrun-exporter
  image: {{ include "testrun-exporter.image" . }}
  {{- if ne $exporter.image.pullPolicy "IfNotPresent" }}
  imagePullPolicy: {{ $exporter.image.pullPolicy }}
  {{- end }}
  {{- if .native }}
  # An init container that runs on: it starts before the application, stops after it, and does not keep a Job from ending.
  restartPolicy: Always
  {{- end }}
  args:
    - --config.file=/etc/testrun-exporter/config/testrun-exporter.yaml
    {{- if ne (int $exporter.web.port) 10955 }}
    - --web.listen-address=0.0.0.0:{{ $exporter.web.port }}
    {{- end }}
    {{- if ne $exporter.web.telemetryPath "/metrics" }}
    - --web.telemetry-path={{ $exporter.web.telemetryPath }}
    {{- end }}
    {{- if $exporter.web.existingSecret }}
    - --web.config.file=/etc/testrun-exporter/web/web-config.yaml
    {{- end }}
    {{- if $exporter.web.enableLifecycle }}
    - --web.enable-lifecycle
    {{- end }}
    {{- range $exporter.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  {{- if or $exporter.state.enabled $exporter.extraEnv }}
  env:
    {{- if $exporter.state.enabled }}
    - name: TESTRUN_EXPORTER_STATE__DIRECTORY
      value: /var/lib/testrun-exporter
    {{- end }}
    {{- with $exporter.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  ports:
    - name: metrics
      containerPort: {{ $exporter.web.port }}
      protocol: TCP
  {{- if .native }}
  # The application starts when this has succeeded, so it must not ask for more than a running process.
  startupProbe:
    {{- include "testrun-exporter.probe" (dict "path" "/-/healthy" "web" $exporter.web) | nindent 4 }}
    periodSeconds: 1
    failureThreshold: 30
  {{- end }}
  {{- if or $exporter.livenessProbe.enabled $exporter.readinessProbe.enabled }}
  # Probes are answered from memory and never depend on a platform.
  {{- end }}
  {{- if $exporter.livenessProbe.enabled }}
  livenessProbe:
    {{- include "testrun-exporter.probe" (dict "path" "/-/healthy" "web" $exporter.web) | nindent 4 }}
    timeoutSeconds: 3
  {{- end }}
  {{- if $exporter.readinessProbe.enabled }}
  # Each source has ended its first round, well or badly: some seconds, or a minute where there is much to read. A sidecar's
  # readiness is its pod's: leave it out if your application must not wait for that.
  readinessProbe:
    {{- include "testrun-exporter.probe" (dict "path" "/-/ready" "web" $exporter.web) | nindent 4 }}
    periodSeconds: 5
    timeoutSeconds: 3
  {{- end }}
  # docs/sizing.md tells how to reckon. No CPU limit: throttling would slow the scrapes.
  resources:
    {{- toYaml $exporter.resources | nindent 4 }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
    # Directories, not subPath: the kubelet brings a changed file into a directory only.
    - name: testrun-exporter-config
      mountPath: /etc/testrun-exporter/config
      readOnly: true
    - name: testrun-exporter-tokens
      mountPath: /etc/testrun-exporter/tokens
      readOnly: true
    {{- if $exporter.web.existingSecret }}
    - name: testrun-exporter-web
      mountPath: /etc/testrun-exporter/web
      readOnly: true
    {{- end }}
    {{- if $exporter.state.enabled }}
    - name: testrun-exporter-state
      mountPath: /var/lib/testrun-exporter
    {{- end }}
{{- end }}

{{- define "testrun-exporter.volumes" -}}
{{- $exporter := .exporter -}}
- name: testrun-exporter-config
  configMap:
    name: {{ include "testrun-exporter.configmap-name" . }}
- name: testrun-exporter-tokens
  secret:
    secretName: {{ $exporter.tokens.existingSecret }}
    # 0440: readable by the pod's group alone, which takes the pod's fsGroup.
    defaultMode: {{ $exporter.tokens.defaultMode }}
    optional: false
{{- if $exporter.web.existingSecret }}
- name: testrun-exporter-web
  secret:
    secretName: {{ $exporter.web.existingSecret }}
    defaultMode: {{ $exporter.tokens.defaultMode }}
    optional: false
{{- end }}
{{- if $exporter.state.enabled }}
- name: testrun-exporter-state
  {{- if $exporter.state.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ $exporter.state.existingClaim }}
  {{- else }}
  # Counters survive a restart of the container, not the end of the pod. A claim outlives both.
  emptyDir:
    sizeLimit: {{ $exporter.state.sizeLimit }}
  {{- end }}
{{- end }}
{{- end }}
