{{/* Values that exclude each other, or need each other. Each message names the field and the fix. */}}
{{- define "visavis.guards" -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$" .Release.Name) -}}
{{- fail (printf "the release name %q cannot name all objects; fix: at most 40 letters, digits and '-', a letter first" .Release.Name) -}}
{{- end -}}
{{- $addresses := dict "mlflow.trackingUri" .Values.mlflow.trackingUri "objectStore.endpointUrl" .Values.objectStore.endpointUrl "serving.tracesUrl" .Values.serving.tracesUrl "kfpLauncher.pipelineRoot" .Values.kfpLauncher.pipelineRoot -}}
{{- range $field, $address := $addresses -}}
{{- if and $address (not (regexMatch "^[a-z0-9]+://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$" $address)) -}}
{{- /* The address is not repeated: it may hold a password. */ -}}
{{- fail (printf "%s is no plain address; fix: write scheme://host[:port][/path] without user, password or query; credentials come from a Secret" $field) -}}
{{- end -}}
{{- end -}}
{{- include "visavis.guardMlflow" . -}}
{{- include "visavis.guardAccounts" . -}}
{{- include "visavis.guardServing" . -}}
{{- range $field := list "training" "serving" -}}
{{- range $name, $_ := (index $.Values $field).env -}}
{{- if regexMatch "(?i)(secret|passw|token|api_?key|access_?key|private_?key|credential)" $name -}}
{{- fail (printf "%s.env.%s sounds like a secret, and values are stored in the release; fix: put it into a Secret and name that in mlflow.secretName or objectStore.secretName" $field $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.queue.enabled (not .Values.queue.clusterQueue) -}}
{{- fail "queue.enabled needs queue.clusterQueue; fix: name the ClusterQueue that an administrator made" -}}
{{- end -}}
{{- with .Values.networkPolicy -}}
{{- if and .enabled (eq .scope "namespace") (not .kubernetesApi.cidrs) -}}
{{- fail "networkPolicy.scope is namespace, but networkPolicy.kubernetesApi.cidrs is empty, so no pipeline step could report its result; fix: name the range of the API server (kubectl get endpointslices kubernetes)" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "visavis.guardMlflow" -}}
{{- with .Values.mlflow -}}
{{- $secret := has .auth (list "basic" "bearer") -}}
{{- if and $secret (not .secretName) -}}
{{- fail (printf "mlflow.auth is %s, but mlflow.secretName is empty; fix: name the Secret" .auth) -}}
{{- else if and .secretName (not $secret) -}}
{{- fail (printf "mlflow.secretName is set, but mlflow.auth is %s, which uses none; fix: set mlflow.auth to basic or bearer, or drop the name" .auth) -}}
{{- end -}}
{{- if $.Values.kfpLauncher.enabled -}}
{{- if not (or .trackingUri $.Values.kfpLauncher.pipelineRoot) -}}
{{- fail "kfpLauncher.enabled has nothing to configure; fix: set mlflow.trackingUri or kfpLauncher.pipelineRoot" -}}
{{- else if and $secret .trackingUri (ne .secretName "kfp-mlflow-credentials") -}}
{{- fail (printf "kfpLauncher.enabled and mlflow.secretName %q exclude each other: KFP reads a Secret named kfp-mlflow-credentials only; fix: use that name" .secretName) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "visavis.guardAccounts" -}}
{{- range $role, $account := .Values.serviceAccounts -}}
{{- if and $account.create $account.name -}}
{{- fail (printf "serviceAccounts.%s.create and serviceAccounts.%s.name exclude each other; fix: set create to false to use the account %q" $role $role $account.name) -}}
{{- else if not (or $account.create $account.name) -}}
{{- fail (printf "serviceAccounts.%s.create is false, but no name is given; fix: name an account that is there" $role) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "visavis.guardServing" -}}
{{- with .Values.serving -}}
{{- if eq .mode "deployment" -}}
{{- if and .keys.secretName .keys.openToAll -}}
{{- fail "serving.keys.secretName and serving.keys.openToAll exclude each other; fix: keep one" -}}
{{- else if not (or .keys.secretName .keys.openToAll) -}}
{{- fail "serving.mode is deployment, but nobody may ask; fix: set serving.keys.secretName (see `visavis key`), or serving.keys.openToAll behind a gateway that asks" -}}
{{- else if not $.Values.mlflow.trackingUri -}}
{{- fail (printf "serving.mode is deployment, but mlflow.trackingUri is empty, so %s cannot be found; fix: set it" .model) -}}
{{- end -}}
{{- $least := .autoscaling.enabled | ternary .autoscaling.minReplicas .replicas -}}
{{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- fail "serving.autoscaling.minReplicas is more than maxReplicas; fix: raise maxReplicas" -}}
{{- end -}}
{{- with .disruption -}}
{{- if and .enabled .minAvailable .maxUnavailable -}}
{{- fail "serving.disruption.minAvailable and maxUnavailable exclude each other; fix: set one of them to 0" -}}
{{- else if and .enabled (not (or .minAvailable .maxUnavailable)) -}}
{{- fail "serving.disruption.minAvailable and maxUnavailable are both 0; fix: set one, or serving.disruption.enabled to false" -}}
{{- else if and .enabled (gt (int $least) 1) (ge (int .minAvailable) (int $least)) -}}
{{- fail (printf "serving.disruption.minAvailable %d leaves no pod of %d to go, so no node could be drained; fix: lower it" (int .minAvailable) (int $least)) -}}
{{- end -}}
{{- end -}}
{{- else if eq .mode "inferenceservice" -}}
{{- if .autoscaling.enabled -}}
{{- fail "serving.autoscaling.enabled and serving.mode inferenceservice exclude each other; fix: switch it off, KServe scales by itself" -}}
{{- end -}}
{{- if $.Values.serviceMonitor.enabled -}}
{{- fail "serviceMonitor.enabled and serving.mode inferenceservice exclude each other; fix: switch it off, KServe names its own Services" -}}
{{- end -}}
{{- end -}}
{{- with .inferenceService -}}
{{- if and .storageUri (ne $.Values.serving.mode "inferenceservice") -}}
{{- fail "serving.inferenceService.storageUri needs serving.mode inferenceservice; fix: set the mode, or drop the address" -}}
{{- else if and .storageUri (not .version) -}}
{{- fail "serving.inferenceService.storageUri needs serving.inferenceService.version; fix: give the number of the version (visavis models)" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
