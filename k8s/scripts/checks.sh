# What deploy.sh looks at before its first change. Sourced by it.
#
# shellcheck shell=bash disable=SC2016 # Dollars in single quotes are those of Go templates and awk.

readonly oldest_minor=35 newest_minor=37

check_tools() {
  step="the checks"
  command -v kubectl >/dev/null || fail "kubectl is not on the PATH: install 1.$oldest_minor or newer"
  command -v openssl >/dev/null || fail "openssl is not on the PATH: it makes the random secrets and the database's certificate"
}

check_versions() {
  local server client
  ask "the cluster does not answer (context $(current_context))" get --raw /version >"$scratch/server"
  kubectl version --client --output=json >"$scratch/client" 2>/dev/null || fail "kubectl cannot tell its version"
  server=$(minor_of "$scratch/server")
  client=$(minor_of "$scratch/client")
  say "cluster of context $(current_context), Kubernetes 1.$server; kubectl 1.$client"
  [ "$server" -ge "$oldest_minor" ] ||
    fail "the cluster runs Kubernetes 1.$server, and 1.$oldest_minor is the oldest that this tree knows: upgrade it first"
  if [ "$client" -lt $((server - 1)) ] || [ "$client" -gt $((server + 1)) ]; then
    fail "kubectl 1.$client is too far from the cluster's 1.$server: use 1.$((server - 1)) to 1.$((server + 1))"
  fi
  [ "$server" -le "$newest_minor" ] || say "note: this tree was tried up to Kubernetes 1.$newest_minor"
}

minor_of() {
  local minor
  minor=$(sed -n 's/.*"minor": *"\([0-9][0-9]*\).*/\1/p' "$1" | head -n 1)
  [ -n "$minor" ] || fail "no version of Kubernetes in the answer: is this a Kubernetes cluster?"
  printf '%s' "$minor"
}

render() {
  local directory=$overlay
  case "$overlay" in
    base) directory=$tree/base ;;
    */*) ;;
    *) directory=$tree/overlays/$overlay ;;
  esac
  [ -d "$directory" ] || misuse "there is no directory $directory"
  kubectl kustomize "$directory" >"$scratch/all.yaml" 2>"$scratch/refusal" ||
    fail "$directory does not render: $(last_line "$scratch/refusal")"
  list_objects >"$scratch/objects"
  say "$overlay: $(grep -c . "$scratch/objects") objects"
}

# One line for each object: apiVersion, kind, namespace, name, and its labels component and name, with - for none. What
# kustomize prints has its keys in order and indents all that is not a key, so that no reader of YAML is needed.
list_objects() {
  awk '
    function or_none(text) { return text ? text : "-" }
    function flush() {
      if (kind) print version, kind, or_none(space), name, or_none(component), or_none(label)
      kind = space = name = component = label = ""
    }
    /^---/ { flush() }
    /^[a-zA-Z]/ { inside = ($1 == "metadata:") }
    /^apiVersion: / { version = $2 }
    /^kind: / { kind = $2 }
    inside && /^  name: / { name = $2 }
    inside && /^  namespace: / { space = $2 }
    inside && /^    app.kubernetes.io\/component: / { component = $2 }
    inside && /^    app.kubernetes.io\/name: / { label = $2 }
    END { flush() }
  ' "$scratch/all.yaml"
}

# Staging and production name hosts and an image that nobody has, for their reader to replace. The others need neither.
check_placeholders() {
  local line
  line=$(grep -m 1 -o '[^ ]*example\.com[^ ]*' "$scratch/all.yaml") || return 0
  case "$overlay$dry_run" in
    base* | minimal* | *yes) say "note: $line is a placeholder, which staging and production replace" ;;
    *) fail "$overlay still says $line: put your image into its kustomization.yaml and your host into its site.yaml" ;;
  esac
}

check_definitions() {
  local lacking group prerequisites='see Prerequisites in README.md, or take --overlay minimal'
  : >"$scratch/lacking"
  # One aggregated API that is down makes this fail after it has printed all others.
  kube --request-timeout=60s api-resources --no-headers 2>"$scratch/refusal" |
    awk '{ print $(NF - 2), $NF, $1 }' >"$scratch/known" || true
  [ -s "$scratch/known" ] || fail "the cluster does not tell what it knows: $(last_line "$scratch/refusal")"
  lacking=$(awk 'NR == FNR { known[$1 " " $2]; next } !(($1 " " $2) in known) { print $1 " " $2 }' \
    "$scratch/known" "$scratch/objects" | sort -u)
  [ -z "$lacking" ] || printf '%s\n' "$lacking" >"$scratch/lacking"
  case "$lacking" in
    *cert-manager.io/*) fail "cert-manager is not installed and $overlay needs it: $prerequisites" ;;
    *keda.sh/*) fail "KEDA is not installed and $overlay needs it: $prerequisites" ;;
  esac
  while read -r group; do
    [ -n "$(lock_lines "$group")" ] || fail "the cluster does not know $group, and definitions.lock does not have it"
  done < <(lacking_groups)
}

lacking_groups() { cut -d / -f 1 "$scratch/lacking" | sort -u; }

# Lines of definitions.lock whose files define kinds of an API group.
lock_lines() { grep -E "^[0-9a-f]{64} .*/$1_[a-z]+\.yaml$" "$tree/definitions.lock" || true; }

# Every object is asked for in one go: may I read, make and change it?
check_rights() {
  local refused
  write_reviews >"$scratch/reviews.yaml"
  ask "the cluster does not tell what you may do" create --validate=false --filename="$scratch/reviews.yaml" \
    --output=go-template="$review_template" >"$scratch/reviewed"
  refused=$(awk '/^false/ && ++count == 1 { first = substr($0, 7) } END { if (count) print count, first }' "$scratch/reviewed")
  [ -z "$refused" ] ||
    fail "you may not ${refused#* } (${refused%% *} rights are missing): ask for cluster-admin, which a first installation needs"
  say "rights: all $(grep -c '^true' "$scratch/reviewed") are there"
}

readonly review_template='{{.status.allowed}} {{with .spec.resourceAttributes -}}
  {{.verb}} {{.resource}}{{with .namespace}} in {{.}}{{end}}{{end}}{{"\n"}}'

write_reviews() {
  list_rights | sort -u | awk '{
    group = index($2, "/") ? substr($2, 1, index($2, "/") - 1) : ""
    print "---\napiVersion: authorization.k8s.io/v1\nkind: SelfSubjectAccessReview\nspec:\n  resourceAttributes:"
    print "    verb: " $1 "\n    group: \"" group "\"\n    resource: " $3 "\n    namespace: \"" ($4 == "-" ? "" : $4) "\""
  }'
}

# `verb apiVersion resource namespace` of all that this script does.
list_rights() {
  awk 'NR == FNR { plural[$1 " " $2] = $3; next }
    ($1 " " $2) in plural { for (n = split("get create patch", verbs); n; n--) print verbs[n], $1, plural[$1 " " $2], $3 }
  ' "$scratch/known" "$scratch/objects"
  printf '%s\n' "get v1 secrets $namespace" "create v1 secrets $namespace" "delete batch/v1 jobs $namespace" \
    "list apps/v1 deployments -" "list apps/v1 statefulsets -" "list v1 pods -"
  [ ! -s "$scratch/lacking" ] || printf '%s\n' "create apiextensions.k8s.io/v1 customresourcedefinitions -"
}

# None of these stops anything, and each explains what would be wondered about later.
note_what_is_missing() {
  if grep -q HorizontalPodAutoscaler "$scratch/objects" && ! grep -q 'metrics.k8s.io/v1beta1 PodMetrics' "$scratch/known"; then
    say "note: there is no metrics-server; autoscalers act when there is one"
  fi
  kube --request-timeout=60s get storageclasses --output=yaml >"$scratch/output" 2>/dev/null || true
  grep -q 'is-default-class: "true"' "$scratch/output" ||
    say "note: there is no default StorageClass; the database waits for one, or for volumes that fit its claims"
}
