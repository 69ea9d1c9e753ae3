{{/* Name of the objects: that of the release, with the chart's where it does not hold it yet. */}}
{{- define "labelmint.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
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
{{- $own := dict
      "host" "0.0.0.0" "port" (int .Values.ports.grpc)
      "metrics" .Values.metrics.enabled "metrics_host" "0.0.0.0" "metrics_port" (int .Values.ports.metrics) -}}
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
{{- merge $own .Values.settings $derived | toPrettyJson -}}
{{- end -}}

{{/* preStop, then the streams' grace, then ten seconds to close what is left. */}}
{{- define "labelmint.terminationGracePeriodSeconds" -}}
{{- $grace := dig "grace_s" 20 .Values.settings -}}
{{- add (int .Values.preStopSleepSeconds) (ceil $grace | int) 10 -}}
{{- end -}}

{{- define "labelmint.probe" -}}
{{- if .root.Values.probes.command -}}
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
exec:
  command: {{- toYaml $command | nindent 4 }}
{{- else -}}
grpc:
  port: {{ .root.Values.ports.grpc }}
{{- end }}
{{ toYaml .times }}
{{- end -}}
