#!/usr/bin/env bash
# Proves that what deploy.sh brought works: pods, Services, autoscalers, logs and numbers, and then, from inside the running
# pods, that every connection of connections.yaml is possible and every other one is refused.
#
# A network that does not enforce NetworkPolicies accepts them without a word. This is how one finds out. All that it makes
# are two pods that end by themselves after five minutes and that it removes before.
#
# shellcheck source-path=SCRIPTDIR disable=SC2016 # Dollars in single quotes are those of Go templates and awk.
set -euo pipefail
umask 077

tree=$(cd "$(dirname "$0")" && pwd)
readonly tree
readonly program=verify
readonly namespace=inventory-system edge=inventory-edge
readonly services="user-service product-catalog-service inventory-service order-service supplier-service"
readonly stranger=stockade-verify
readonly python=/opt/stockade/bin/python

# shellcheck source=scripts/words.sh
source "$tree/scripts/words.sh"

main() {
  parse_arguments "$@"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"; remove_strangers' EXIT
  trap 'fail "interrupted: nothing but a look was lost"' INT TERM HUP
  command -v kubectl >/dev/null || fail "kubectl is not on the PATH"
  ask "the cluster does not answer (context $(current_context))" get --raw /version >"$scratch/version"
  ask "nothing is deployed here" get namespace "$namespace" "$edge" >"$scratch/output"
  verify_pods
  verify_endpoints
  verify_autoscalers
  verify_logs
  verify_usage
  verify_policies
  verify_admission
  verify_connections
  verify_strangers
  [ "$failures" -eq 0 ] ||
    fail "$failures of $((failures + successes)) findings are bad: docs/TROUBLESHOOTING_GUIDE.md goes on from here"
  say "all $successes findings are good"
}

context=()
failures=0
successes=0

parse_arguments() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --context)
        [ $# -gt 1 ] || misuse "--context needs a value"
        context=("--context=$2")
        shift
        ;;
      -h | --help)
        printf 'usage: verify.sh [--context NAME]\n\nExit codes: 0 all is well; 1 something is not; 2 wrong usage.\n'
        exit 0
        ;;
      *) misuse "unknown argument $1" ;;
    esac
    shift
  done
}

misuse() {
  printf 'verify: %s; see verify.sh --help\n' "$1" >&2
  exit 2
}

good() {
  successes=$((successes + 1))
  say "good: $*"
}

bad() {
  failures=$((failures + 1))
  say "BAD: $*"
}

# judge WHAT COMPLAINTS: good when there is no complaint.
judge() {
  if [ -z "$2" ]; then good "$1"; else bad "$1: ${2# }"; fi
}

show() {
  kube --request-timeout=30s "$@" 2>&1 | sed 's/^/  /' || true
}

# --- the commands of the specification, looked at by themselves

verify_pods() {
  local lacking
  show get pods --namespace="$namespace"
  show get pods --namespace="$edge"
  ask "the pods" get pods --all-namespaces --output=go-template="$pod_template" \
    --selector='app.kubernetes.io/part-of=stockade,app.kubernetes.io/component!=job' >"$scratch/pods"
  lacking=$(awk '$2 != "Succeeded" && $3 != "ready" { printf " %s is %s", $1, $2 }' "$scratch/pods")
  [ -s "$scratch/pods" ] || lacking="there are none"
  judge "every pod is ready" "$lacking"
  ask "the Jobs" get jobs --namespace="$namespace" --selector=app.kubernetes.io/component=job \
    --output=go-template="$job_template" >"$scratch/jobs"
  judge "roles and migrations are done" "$(awk '!/ Complete/ { printf " %s is not", $1 }' "$scratch/jobs")"
}

readonly job_template='{{range .items}}{{.metadata.name}}
  {{- range .status.conditions}}{{if eq .status "True"}} {{.type}}{{end}}{{end}}{{"\n"}}{{end}}'

readonly pod_template='{{range .items}}{{.metadata.name}} {{.status.phase}}
  {{- range .status.conditions}}{{if and (eq .type "Ready") (eq .status "True")}} ready{{end}}{{end}}{{"\n"}}{{end}}'

verify_endpoints() {
  local service lacking=''
  show get svc --namespace="$namespace"
  for service in $services postgres; do
    ask "the endpoints of $service" get endpointslices --namespace="$namespace" \
      --selector="kubernetes.io/service-name=$service" --output=go-template="$endpoint_template" >"$scratch/endpoints"
    grep -q ready "$scratch/endpoints" || lacking="$lacking $service"
  done
  judge "every Service has a ready pod behind it" "$lacking"
}

readonly endpoint_template='{{range .items}}{{range .endpoints}}{{if .conditions.ready}}ready {{end}}{{end}}{{end}}'

verify_autoscalers() {
  show get hpa --namespace="$namespace"
  ask "the autoscalers" get hpa --namespace="$namespace" --output=go-template="$autoscaler_template" >"$scratch/autoscalers"
  if [ -s "$scratch/autoscalers" ]; then
    judge "every autoscaler sees its numbers" "$(awk '!/ True$/ { printf " %s does not", $1 }' "$scratch/autoscalers")"
  else
    say "skipped: autoscalers, of which this overlay has none"
  fi
}

readonly autoscaler_template='{{range .items}}{{.metadata.name}}
  {{- range .status.conditions}}{{if eq .type "ScalingActive"}} {{.status}}{{end}}{{end}}{{"\n"}}{{end}}'

verify_logs() {
  local service silent=''
  for service in $services; do
    kube --request-timeout=30s logs "deployment/$service" --namespace="$namespace" --tail=3 >"$scratch/log" 2>&1 ||
      silent="$silent $service ($(last_line "$scratch/log"))"
    sed "s/^/  $service: /" "$scratch/log"
  done
  judge "the log of every service can be read" "$silent"
}

verify_usage() {
  if kube --request-timeout=30s top pods --namespace="$namespace" >"$scratch/usage" 2>"$scratch/refusal"; then
    sed 's/^/  /' "$scratch/usage"
    good "pods report what they use"
  else
    say "skipped: usage of pods, since there are no numbers ($(last_line "$scratch/refusal")); autoscalers need metrics-server"
  fi
}

# --- what has to be refused

verify_policies() {
  local space lacking=''
  show get networkpolicies --namespace="$namespace"
  for space in "$namespace" "$edge"; do
    ask "the policies" get networkpolicies --namespace="$space" --output=go-template="$policy_template" >"$scratch/policies"
    grep -qx 'all Ingress Egress ' "$scratch/policies" || lacking="$lacking $space"
  done
  judge "both namespaces deny both ways by default" "$lacking"
}

readonly policy_template='{{range .items}}
  {{- if not (or .spec.podSelector.matchLabels .spec.podSelector.matchExpressions .spec.ingress .spec.egress)}}all {{end}}
  {{- range .spec.policyTypes}}{{.}} {{end}}{{"\n"}}{{end}}'

verify_admission() {
  local space
  for space in "$namespace" "$edge"; do
    if kube --request-timeout=30s run "$stranger" --namespace="$space" --image=registry.invalid/any --privileged --restart=Never \
      --dry-run=server >"$scratch/output" 2>"$scratch/refusal"; then
      bad "$space takes a privileged pod"
    elif grep -q 'violates PodSecurity' "$scratch/refusal"; then
      good "$space refuses a privileged pod"
    else
      bad "$space refuses a privileged pod for another reason: $(last_line "$scratch/refusal")"
    fi
  done
}

# Every service to every other party, by the names that programs use.
verify_connections() {
  local service party
  for service in $services; do
    for party in $services postgres kong api-server; do
      # Whether a pod may reach itself is not for a NetworkPolicy to say.
      [ "$party" = "$service" ] || printf '%s %s\n' "$(address_of "$party")" "$(say_expected "$service" "$party")"
    done >"$scratch/expected"
    compare "$service" "$namespace" "deployment/$service"
  done
}

address_of() {
  case "$1" in
    api-server) printf 'kubernetes.default.svc.cluster.local:443' ;;
    kong) printf 'kong.%s.svc.cluster.local:80' "$edge" ;;
    postgres) printf 'postgres.%s.svc.cluster.local:5432' "$namespace" ;;
    *) printf '%s.%s.svc.cluster.local:80' "$1" "$namespace" ;;
  esac
}

say_expected() {
  if grep -q "{from: $1, to: $2," "$tree/connections.yaml"; then printf 'open'; else printf 'closed'; fi
}

# compare NAME NAMESPACE POD: what the pod can reach, with what `expected` says.
compare() {
  local targets
  targets=$(cut -d ' ' -f 1 "$scratch/expected")
  # shellcheck disable=SC2086 # One argument for each target.
  if ! kube exec --namespace="$2" "$3" -- "$python" -I -c "$(cat "$tree/scripts/probe.py")" $targets \
    >"$scratch/found" 2>"$scratch/refusal"; then
    bad "$1 cannot be asked: $(last_line "$scratch/refusal")"
    return
  fi
  judge "$1 reaches$(list_open) and nothing else of ours" "$(
    awk 'NR == FNR { found[$1] = $2; next }
      found[$1] != $2 { printf " %s is %s", $1, ($1 in found ? found[$1] : "not told of") }' "$scratch/found" "$scratch/expected"
  )"
}

list_open() {
  awk '$2 == "open" { split($1, part, "."); list = list " " part[1] } END { print list ? list : " nobody" }' "$scratch/expected"
}

# A pod that no policy knows, among the services and outside of them. Where nothing is denied by default, only the policies
# of the targets can refuse it; where everything is, it still has to resolve names.
verify_strangers() {
  local space party
  for space in "$namespace" default; do
    : >"$scratch/expected"
    for party in $services postgres kong; do printf '%s closed\n' "$(address_of "$party")" >>"$scratch/expected"; done
    [ "$space" = default ] || printf '%s closed\n' "$(address_of api-server)" >>"$scratch/expected"
    if start_stranger "$space"; then
      compare "a stranger in $space" "$space" "pod/$stranger"
    else
      bad "a stranger in $space does not start: $(last_line "$scratch/refusal")"
    fi
  done
}

strangers=

start_stranger() {
  local image quietly=(--namespace="$1" --output=name)
  image=$(kube get deployment user-service --namespace="$namespace" --output=go-template="$image_template" 2>"$scratch/refusal") ||
    return 1
  strangers="$strangers $1"
  kube delete pod "$stranger" --ignore-not-found --grace-period=1 "${quietly[@]}" >"$scratch/output" 2>"$scratch/refusal" &&
    write_stranger "$image" | kube create --filename=- "${quietly[@]}" >"$scratch/output" 2>"$scratch/refusal" &&
    kube wait pod "$stranger" --for=condition=Ready --timeout=60s "${quietly[@]}" >"$scratch/output" 2>"$scratch/refusal"
}

readonly image_template='{{(index .spec.template.spec.containers 0).image}}'

write_stranger() {
  cat <<TEXT
apiVersion: v1
kind: Pod
metadata:
  name: $stranger
spec:
  activeDeadlineSeconds: 300
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: server
      image: $1
      imagePullPolicy: IfNotPresent
      command: [$python, -I, -c, "import time; time.sleep(300)"]
      resources: {requests: {cpu: 10m, memory: 32Mi}, limits: {memory: 64Mi}}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
TEXT
}

remove_strangers() {
  local space
  for space in $strangers; do
    kube --request-timeout=20s delete pod "$stranger" --namespace="$space" --ignore-not-found --wait=false >/dev/null 2>&1 || true
  done
}

main "$@"
