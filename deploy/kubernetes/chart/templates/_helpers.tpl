{{/* The name of everything: the release's, once. */}}
{{- define "proxytrace.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains "proxytrace" .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-proxytrace" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What finds the pods. Prometheus takes its job from the first, which the rules know. */}}
{{- define "proxytrace.selector" -}}
app.kubernetes.io/name: proxytrace
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "proxytrace.labels" -}}
{{ include "proxytrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "proxytrace.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* From 1.30 on AppArmor is a field, before it is an annotation. */}}
{{- define "proxytrace.appArmorIsField" -}}
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version }}true{{ end -}}
{{- end -}}

{{/* How a kubelet asks for a page. */}}
{{- define "proxytrace.probe" -}}
{{- if .root.Values.web.clientCertificates -}}
exec:
  command:
    - /proxytrace
    - agent
    - --listen=:{{ .root.Values.agent.port }}
    - --web-config=/etc/proxytrace-web/web.yml
    - --probe={{ trimPrefix "/" .path }}
{{- else -}}
httpGet:
  path: {{ .path }}
  port: metrics
  {{- if .root.Values.web.tls }}
  scheme: HTTPS
  {{- end }}
{{- end -}}
{{- end -}}
