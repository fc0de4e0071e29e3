# How deploy.sh waits, tells how far it is, and says why something does not come. Sourced by it.
#
# shellcheck shell=bash disable=SC2016 # Dollars in single quotes are those of Go templates and awk.

wait_for_job() {
  local state failed told=0 deadline=$((SECONDS + timeout_s))
  while [ "$SECONDS" -lt "$deadline" ]; do
    kube --request-timeout=20s get job "$1" --namespace="$namespace" --output=go-template="$job_template" \
      >"$scratch/output" 2>"$scratch/refusal" || printf '%s\n' "$told" >"$scratch/output"
    read -r failed state <"$scratch/output"
    case "$state" in
      *Complete,*) say "$1: done" && return 0 ;;
      *Failed,*) fail "$1 failed: $(log_of "$1"): put that right and run this again" ;;
    esac
    [ "$failed" -le "$told" ] || say "$1: attempt $failed failed ($(log_of "$1")); it is tried again"
    told=$failed
    sleep 2
  done
  tell_reasons "app=$1"
  fail "$1 has not ended after $timeout_s s: $(log_of "$1"): see \`kubectl describe job $1 -n $namespace\`"
}

readonly job_template='{{or .status.failed 0}}{{" "}}
  {{- range .status.conditions}}{{if eq .status "True"}}{{.type}},{{end}}{{end}}{{"\n"}}'

log_of() {
  kube --request-timeout=20s logs --namespace="$namespace" --selector="app=$1" --tail=1 >"$scratch/log" 2>/dev/null || true
  [ -s "$scratch/log" ] || printf 'no log yet' >"$scratch/log"
  last_line "$scratch/log"
}

# wait_for_pods STEP SELECTOR: until every pod of every workload is of the wanted kind and available.
wait_for_pods() {
  local seen='' now='' deadline=$((SECONDS + timeout_s)) told_s=$SECONDS
  [ -z "$dry_run" ] || return 0
  step="the wait for $1"
  while [ "$SECONDS" -lt "$deadline" ]; do
    now=$(list_unfinished "$2")
    [ -n "$now" ] || { say "$1: ready" && return 0; }
    [ "$now" = "$seen" ] || say "$1: waiting for $now"
    seen=$now
    if [ $((SECONDS - told_s)) -ge 30 ]; then
      tell_reasons "$2"
      told_s=$SECONDS
    fi
    sleep 2
  done
  tell_reasons "$2"
  fail "$1 not ready after $timeout_s s: $now: docs/TROUBLESHOOTING_GUIDE.md, \"Pods not starting\", goes on from here"
}

# Each workload that is not finished, and how far it is; an API server that is away for a moment is waited for, too.
list_unfinished() {
  if kube --request-timeout=20s get deployments,statefulsets --all-namespaces \
    --selector="app.kubernetes.io/part-of=stockade,$1" --output=go-template="$workload_template" \
    >"$scratch/workloads" 2>"$scratch/refusal"; then
    awk '
      $3 < $2 || $6 < $4 { told = $6 "/" $4 " up to date" }
      !told && $7 < $4 { told = $7 "/" $4 }
      !told && $5 > $4 { told = "to end its old pods" }
      told { list = list (list ? ", " : "") $1 " " told; told = "" }
      END { printf "%s", list }' "$scratch/workloads"
  else
    printf 'an answer of the API server (%s)' "$(last_line "$scratch/refusal")"
  fi
}

# Name, generation, the generation that its controller has seen; pods wanted, there, up to date, available.
readonly workload_template='{{range .items}}{{.metadata.name}} {{.metadata.generation}} {{with .status -}}
  {{or .observedGeneration 0}}{{end}} {{.spec.replicas}} {{with .status -}}
  {{or .replicas 0}} {{or .updatedReplicas 0}} {{or .availableReplicas 0}}{{end}}{{"\n"}}{{end}}'

# What Kubernetes says about pods that do not run, and about pods that it would not even make.
tell_reasons() {
  kube --request-timeout=20s get pods --all-namespaces --selector="$1" --output=go-template="$reason_template" \
    >"$scratch/reasons" 2>/dev/null || true
  kube --request-timeout=20s get events --all-namespaces --field-selector=reason=FailedCreate \
    --output=go-template="$event_template" 2>/dev/null | tail -n 1 >>"$scratch/reasons" || true
  awk '!/PodInitializing/ && NF && count++ < 6 { print "deploy:   " $0 }' "$scratch/reasons"
}

readonly reason_template='{{range $pod := .items}}
  {{- range .status.conditions}}{{if and (eq .type "PodScheduled") (eq .status "False")}}
    {{- $pod.metadata.name}}: {{.message}}{{"\n"}}{{end}}{{end}}
  {{- range .status.initContainerStatuses}}{{with .state.waiting}}
    {{- $pod.metadata.name}}: {{.reason}} {{or .message ""}}{{"\n"}}{{end}}{{end}}
  {{- range .status.containerStatuses}}{{with .state.waiting}}
    {{- $pod.metadata.name}}: {{.reason}} {{or .message ""}}{{"\n"}}{{end}}{{end}}
{{- end}}'

readonly event_template='{{range .items}}{{$space := .metadata.namespace}}
  {{- if or (eq $space "inventory-system") (eq $space "inventory-edge")}}
  {{- .involvedObject.name}}: {{.message}}{{"\n"}}{{end}}{{end}}'
