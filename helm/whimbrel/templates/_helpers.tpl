{{- define "whimbrel.name" -}}
{{- if contains "whimbrel" .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-whimbrel" .Release.Name }}{{ end }}
{{- end }}

{{/* The labels by which pods are found: (root, component). They never change. */}}
{{- define "whimbrel.selector" -}}
app.kubernetes.io/name: whimbrel
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "whimbrel.labels" -}}
{{ include "whimbrel.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Every service that is on: what files/mesh.yaml, the defaults and its own values say. */}}
{{- define "whimbrel.services" -}}
{{- $root := . }}
{{- $services := dict }}
{{- range $name, $told := .Files.Get "files/mesh.yaml" | fromYaml }}
{{- $own := index $root.Values.services $name | default dict }}
{{- $service := mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy $own) (dict "told" $told) }}
{{- if $root.Values.certManager.enabled }}
{{- $secret := printf "%s-%s-tls" (include "whimbrel.name" $root) $name }}
{{- range $file, $key := dict "certificate" "tls.crt" "key" "tls.key" "ca" "ca.crt" }}
{{- $_ := set $service.files (printf "tls__%s" $file) (dict "secret" $secret "key" $key) }}
{{- end }}
{{- end }}
{{- if $service.enabled }}{{ $_ := set $services $name $service }}{{ end }}
{{- end }}
{{- toYaml $services }}
{{- end }}

{{- define "whimbrel.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* What a service speaks on its port, by the name that Kubernetes has for it. */}}
{{- define "whimbrel.protocol" -}}
{{- $shown := "tls__certificate" }}
{{- if .told.isPublic }}{{ $shown = "client_tls__certificate" }}{{ end }}
{{- if index .files $shown }}https{{ else }}kubernetes.io/h2c{{ end }}
{{- end }}

{{/* A value as the environment has it: a whole number, which YAML reads as a float, without exponent. */}}
{{- define "whimbrel.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}{{ else }}{{ toString . }}{{ end }}
{{- end }}

{{/* The environment of a service: (root, name, service). */}}
{{- define "whimbrel.env" -}}
{{- $prefix := printf "WHIMBREL_%s_" (upper .name) }}
{{- $etcd := .root.Values.etcd.address }}
{{- if .root.Values.stores.etcd.enabled }}{{ $etcd = printf "%s-etcd:2379" (include "whimbrel.name" .root) }}{{ end }}
{{- $told := dict
  "listen" (printf "0.0.0.0:%v" .service.told.port)
  "advertise" (printf "$(POD_IP):%v" .service.told.port)
  "health_listen" "0.0.0.0:50090"
  "etcd" $etcd
  "etcd_prefix" .root.Values.etcd.prefix
  "drain" (printf "PT%dS" (int .service.drainSeconds))
  "telemetry__prometheus_port" (.root.Values.telemetry.prometheusPort | int)
  "telemetry__prometheus_host" "0.0.0.0"
  "telemetry__otlp_endpoint" .root.Values.telemetry.otlpEndpoint
  "telemetry__sampled" .root.Values.telemetry.sampled }}
{{- range $setting, $_ := mergeOverwrite (dict) .service.settings .service.secrets .service.files }}
{{- $places := 0 }}
{{- range list $told $.service.settings $.service.secrets $.service.files }}
{{- if hasKey . $setting }}{{ $places = add1 $places }}{{ end }}
{{- end }}
{{- if gt (int $places) 1 }}
{{- fail (printf "services.%s: %s is set in two places, or by the chart itself" $.name $setting) }}
{{- end }}
{{- end }}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- range $setting, $value := mergeOverwrite (deepCopy $told) .service.settings }}
- name: {{ $prefix }}{{ upper $setting }}
  value: {{ include "whimbrel.text" $value | quote }}
{{- end }}
{{- range $setting, $from := .service.secrets }}
- name: {{ $prefix }}{{ upper $setting }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.secret }}
      key: {{ $from.key }}
{{- end }}
{{- range $setting, $from := .service.files }}
- name: {{ $prefix }}{{ upper $setting }}
  value: /run/secrets/whimbrel/{{ $setting }}/{{ $from.key }}
{{- end }}
{{- end }}

{{/* The mounts and volumes of the files of a service; a pod sees the keys that it reads, no more. */}}
{{- define "whimbrel.mounts" -}}
{{- range $setting, $_ := .files }}
- name: {{ $setting | replace "_" "-" }}
  mountPath: /run/secrets/whimbrel/{{ $setting }}
  readOnly: true
{{- end }}
{{- end }}

{{- define "whimbrel.volumes" -}}
{{- range $setting, $from := .files }}
- name: {{ $setting | replace "_" "-" }}
  secret:
    secretName: {{ $from.secret }}
    defaultMode: 0440
    items:
      - key: {{ $from.key }}
        path: {{ $from.key }}
{{- end }}
{{- end }}

{{/* Of every pod that this chart makes. */}}
{{- define "whimbrel.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "whimbrel.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Where a pod of the image may run: (root, service). */}}
{{- define "whimbrel.scheduling" -}}
{{- with .service.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .service.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .service.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
