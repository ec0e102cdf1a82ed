{{/* Pods of whole namespaces: a list of names. */}}
{{- define "visavis.namespacePeers" -}}
{{- range . }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ . }}
{{- end }}
{{- end }}

{{- define "visavis.rangePeers" -}}
{{- range . }}
- ipBlock:
    cidr: {{ . }}
{{- end }}
{{- end }}

{{- define "visavis.tcpPorts" -}}
{{- range . }}
- port: {{ . }}
  protocol: TCP
{{- end }}
{{- end }}

{{/* One rule of egress: a map of namespaces, cidrs and ports. */}}
{{- define "visavis.egressRule" -}}
- to:
    {{- include "visavis.namespacePeers" .namespaces | nindent 4 }}
    {{- include "visavis.rangePeers" .cidrs | nindent 4 }}
  ports:
    {{- include "visavis.tcpPorts" .ports | nindent 4 }}
{{- end }}

{{/*
One rule of egress to an address: (list field address rule). Namespace and port are read from the address where the rule
does not say them. An address that the rule cannot reach is a mistake that would show as a time-out much later.
*/}}
{{- define "visavis.egressTo" -}}
{{- $field := index . 0 -}}
{{- $url := urlParse (index . 1) -}}
{{- $rule := index . 2 -}}
{{- $host := regexReplaceAll ":[0-9]+$" $url.host "" -}}
{{- $namespaces := $rule.namespaces -}}
{{- if and (not $namespaces) (regexMatch "^[^.]+\\.[^.]+\\.svc(\\.|$)" $host) -}}
{{- $namespaces = list (index (splitList "." $host) 1) -}}
{{- end -}}
{{- if not (or $namespaces $rule.cidrs) -}}
{{- fail (printf "networkPolicy.%s lets nobody reach %s; fix: name its namespaces or cidrs there, or set networkPolicy.enabled to false" $field $url.host) -}}
{{- end -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{ include "visavis.egressRule" (dict "namespaces" $namespaces "cidrs" $rule.cidrs "ports" ($rule.ports | default (list $port))) }}
{{- end }}

{{/* Egress that every pod of visavis needs. */}}
{{- define "visavis.egress" -}}
{{- $policy := .Values.networkPolicy -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ $policy.dns.namespace }}
      podSelector:
        matchLabels:
          {{- toYaml $policy.dns.podLabels | nindent 10 }}
    {{- include "visavis.rangePeers" $policy.dns.cidrs | nindent 4 }}
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- with .Values.mlflow.trackingUri }}
{{ include "visavis.egressTo" (list "mlflow" . $policy.mlflow) }}
{{- end }}
{{- $store := .Values.objectStore.endpointUrl }}
{{- if or $store $policy.objectStore.cidrs $policy.objectStore.namespaces .Values.objectStore.secretName .Values.objectStore.bucket }}
{{ include "visavis.egressTo" (list "objectStore" ($store | default (printf "https://s3.%s.amazonaws.com" .Values.objectStore.region)) $policy.objectStore) }}
{{- end }}
{{- range $policy.extraEgress }}
{{ include "visavis.egressRule" . }}
{{- end }}
{{- end }}

{{/* Egress to the API server, if it is known. */}}
{{- define "visavis.apiEgress" -}}
{{- with .Values.networkPolicy.kubernetesApi }}
{{- if .cidrs }}
{{ include "visavis.egressRule" (dict "namespaces" list "cidrs" .cidrs "ports" .ports) }}
{{- end }}
{{- end }}
{{- end }}
