{{/* Name of the objects: that of the release, with the chart's where it does not hold it yet. */}}
{{- define "labelmint.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" (replace "." "-" .Release.Name) .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "labelmint.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "labelmint.labels" -}}
{{ include "labelmint.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "labelmint.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "labelmint.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "labelmint.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- $tag := .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion (ternary "gpu" "cpu" .Values.gpu.enabled)) -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* All settings of the server, as JSON: those of the chart over the user's, those over what follows from other values. */}}
{{- define "labelmint.settings" -}}
{{- $derived := dict "provider" (ternary "cuda" "cpu" .Values.gpu.enabled) -}}
{{- $provider := .Values.settings.provider | default $derived.provider -}}
{{- if and .Values.gpu.enabled (eq $provider "cuda") (gt (int .Values.gpu.count) 1) (not (hasKey .Values.settings "devices")) -}}
{{- if contains "/mig-" .Values.gpu.resource -}}
{{- fail (printf "gpu.count is %d and gpu.resource is %s, but a process sees one MIG slice only; set gpu.count to 1 and raise replicas" (int .Values.gpu.count) .Values.gpu.resource) -}}
{{- end -}}
{{- $devices := list -}}
{{- range until (int .Values.gpu.count) -}}
{{- $devices = append $devices . -}}
{{- end -}}
{{- $_ := set $derived "devices" $devices -}}
{{- end -}}
{{- $own := dict
      "host" "0.0.0.0" "port" (int .Values.ports.grpc)
      "metrics" .Values.metrics.enabled "metrics_host" .Values.metrics.host "metrics_port" (int .Values.ports.metrics) -}}
{{- if .Values.bundles.folders -}}
{{- $paths := list -}}
{{- range .Values.bundles.folders -}}
{{- $paths = append $paths (printf "/bundles/%s" .) -}}
{{- end -}}
{{- $_ := set $own "bundle" $paths -}}
{{- end -}}
{{- if .Values.repository.volume -}}
{{- $_ := set $own "model_repository" (list "/models" .Values.repository.folder | compact | join "/") -}}
{{- end -}}
{{- if .Values.quotas.enabled -}}
{{- $_ := set $own "quota_file" (printf "%s/quotas" (include "labelmint.stateFolder" .)) -}}
{{- end -}}
{{- merge $own .Values.settings $derived | toPrettyJson -}}
{{- end -}}

{{/* The only folder that the server can write to; there with quotas alone. */}}
{{- define "labelmint.stateFolder" -}}
/var/lib/labelmint
{{- end -}}

{{/* What the port of gRPC speaks, for meshes and gateways. */}}
{{- define "labelmint.appProtocol" -}}
{{- ternary "https" "kubernetes.io/h2c" (not (empty .Values.settings.tls_certificate)) -}}
{{- end -}}

{{- define "labelmint.ipFamilyPolicy" -}}
{{- with .Values.service.ipFamilyPolicy -}}
ipFamilyPolicy: {{ . }}
{{- end -}}
{{- end -}}

{{/* Time that the startup probe waits, and five minutes for the rest: a server that may still start has not failed. */}}
{{- define "labelmint.progressDeadlineSeconds" -}}
{{- $startup := .Values.probes.startup -}}
{{- add (mul (int $startup.periodSeconds) (int $startup.failureThreshold)) (int $startup.initialDelaySeconds) 300 -}}
{{- end -}}

{{/* preStop, then the streams' grace, then ten seconds to close what is left. */}}
{{- define "labelmint.terminationGracePeriodSeconds" -}}
{{- $grace := dig "grace_s" 20 .Values.settings -}}
{{- add (int .Values.preStopSleepSeconds) (ceil $grace | int) 10 -}}
{{- end -}}

{{/* A probe. root: everything, times: of the probe, model: what it asks for; "" is the server as a whole. */}}
{{- define "labelmint.probe" -}}
{{- if .root.Values.probes.command -}}
{{- if .model -}}
{{- fail "probes.command takes the place of the probe that asks for probes.readinessModel; leave one of them out, or let the command ask for the model" -}}
{{- end -}}
exec:
  command: {{- toYaml .root.Values.probes.command | nindent 4 }}
{{- else if .root.Values.settings.tls_certificate -}}
{{- $tls := .root.Values.probes.tls -}}
{{- if not $tls.rootCa -}}
{{- fail "settings.tls_certificate is set, but probes.tls.rootCa is empty; name the file of the authorities that signed the certificate, so that probes can check it" -}}
{{- end -}}
{{- if and .root.Values.settings.tls_client_ca (not (and $tls.certificate $tls.key)) -}}
{{- fail "settings.tls_client_ca is set, but probes.tls.certificate or probes.tls.key is empty; name what the probe is to show, for without it the server lets nobody in" -}}
{{- end -}}
{{- $command := list "labelmint" "health" "--address" (printf "127.0.0.1:%d" (int .root.Values.ports.grpc)) "--tls-root-ca" $tls.rootCa -}}
{{- with $tls.serverName -}}{{- $command = concat $command (list "--tls-server-name" .) -}}{{- end -}}
{{- if $tls.certificate -}}
{{- $command = concat $command (list "--tls-certificate" $tls.certificate "--tls-key" $tls.key) -}}
{{- end -}}
{{- with .model -}}{{- $command = append $command . -}}{{- end -}}
exec:
  command: {{- toYaml $command | nindent 4 }}
{{- else -}}
grpc:
  port: {{ .root.Values.ports.grpc }}
  {{- with .model }}
  service: {{ . | quote }}
  {{- end }}
{{- end }}
{{ toYaml .times }}
{{- end -}}
