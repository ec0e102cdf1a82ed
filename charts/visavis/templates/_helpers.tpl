{{/* Every object is named after the release, so releases never share one. */}}
{{- define "visavis.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: visavis
{{ include "visavis.selector" . }}
{{- end }}

{{- define "visavis.selector" -}}
app.kubernetes.io/name: visavis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Head of an object: (list $ name component). */}}
{{- define "visavis.metadata" -}}
{{- $ := index . 0 -}}
name: {{ index . 1 }}
namespace: {{ $.Release.Namespace }}
labels:
  {{- include "visavis.labels" $ | nindent 2 }}
  app.kubernetes.io/component: {{ index . 2 }}
{{- end }}

{{/* Image by digest over tag: (list $ name). */}}
{{- define "visavis.image" -}}
{{- $ := index . 0 -}}
{{- $name := index . 1 -}}
{{- $image := index $.Values.images $name -}}
{{- $place := join "/" (compact (list $.Values.images.registry $image.repository)) -}}
{{- if $image.digest -}}
{{ $place }}@{{ $image.digest }}
{{- else if $.Values.images.requireDigest -}}
{{- fail (printf "images.%s.digest is empty, and images.requireDigest is on; fix: set it to the digest (sha256:...) of %s" $name $place) -}}
{{- else -}}
{{ $place }}:{{ $image.tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Name of the account of a role: (list $ role). */}}
{{- define "visavis.account" -}}
{{- $ := index . 0 -}}
{{- $role := index . 1 -}}
{{- $account := index $.Values.serviceAccounts $role -}}
{{- if $account.create }}{{ $.Release.Name }}-{{ $role }}{{ else }}{{ $account.name }}{{ end -}}
{{- end }}

{{/* Only MLflow's authentication by the pod's account needs a token in pods that never ask the API server. */}}
{{- define "visavis.token" -}}
{{ eq .Values.mlflow.auth "kubernetes" }}
{{- end }}

{{- define "visavis.podSecurity" -}}
runAsNonRoot: true
{{- range $name := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- with index $.Values.security $name }}
{{ $name }}: {{ . }}
{{- end }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "visavis.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What every container reads: the ConfigMap of addresses, and secrets by name. */}}
{{- define "visavis.envFrom" -}}
- configMapRef:
    name: {{ .Release.Name }}-env
{{- with .Values.objectStore.secretName }}
- secretRef:
    name: {{ . }}
{{- end }}
{{- end }}

{{- define "visavis.env" -}}
# The root is read-only: what libraries keep goes to /tmp.
- name: HOME
  value: /tmp
{{- with .Values.mlflow }}
{{- if eq .auth "basic" }}
{{ include "visavis.fromSecret" (list "MLFLOW_TRACKING_USERNAME" .secretName .usernameKey) }}
{{ include "visavis.fromSecret" (list "MLFLOW_TRACKING_PASSWORD" .secretName .passwordKey) }}
{{- else if eq .auth "bearer" }}
{{ include "visavis.fromSecret" (list "MLFLOW_TRACKING_TOKEN" .secretName .tokenKey) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "visavis.fromSecret" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end }}

{{/* A map as a list of variables; sorted by name. */}}
{{- define "visavis.variables" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "visavis.caMount" -}}
{{- if .Values.caBundle.configMapName }}
- name: ca
  mountPath: /etc/visavis/ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "visavis.caVolume" -}}
{{- with .Values.caBundle }}
{{- if .configMapName }}
- name: ca
  configMap:
    name: {{ .configMapName }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- end }}

{{/* Where pods of a role run: the role's values. */}}
{{- define "visavis.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The settings of `visavis promote --serving`; the same fields as `ServingConfig`. */}}
{{- define "visavis.servingSettings" -}}
{{- $serving := .Values.serving -}}
name: {{ .Release.Name }}
namespace: {{ .Release.Namespace }}
mode: {{ $serving.inferenceService.deploymentMode }}
image: {{ include "visavis.image" (list . "serve") }}
service_account: {{ include "visavis.account" (list . "serving") }}
min_replicas: {{ $serving.replicas }}
resources:
  {{- range $kind, $amounts := $serving.resources }}
  {{ $kind }}:
    {{- range $name, $amount := $amounts }}
    {{ $name }}: {{ $amount | quote }}
    {{- end }}
  {{- end }}
env:
  {{- include "visavis.servingEnv" . | nindent 2 }}
{{- end }}

{{- define "visavis.servingEnv" -}}
{{- $env := deepCopy .Values.serving.env -}}
{{- with .Values.serving.tracesUrl }}{{ $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . }}{{ end -}}
{{ toYaml $env }}
{{- end }}
