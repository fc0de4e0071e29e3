#!/usr/bin/env bash
# Brings Stockade to the cluster of the present kubectl context: namespaces, secrets, database, roles and migrations,
# services, gateway, ingress, each waited for before the next.
#
# Everything that can be known to fail is looked at before the first change. Each step can be repeated, so after a stop or an
# interruption the same command goes on; nothing is ever deleted but Jobs that have ended. README.md tells the rest.
#
# shellcheck source-path=SCRIPTDIR disable=SC2016 # Dollars in single quotes are those of Go templates and awk.
set -euo pipefail
umask 077

tree=$(cd "$(dirname "$0")" && pwd)
readonly tree
readonly program=deploy
readonly namespace=inventory-system

# shellcheck source=scripts/words.sh
source "$tree/scripts/words.sh"
# shellcheck source=scripts/checks.sh
source "$tree/scripts/checks.sh"
# shellcheck source=scripts/secrets.sh
source "$tree/scripts/secrets.sh"
# shellcheck source=scripts/waits.sh
source "$tree/scripts/waits.sh"

usage() {
  cat <<'TEXT'
usage: deploy.sh [--overlay NAME|DIR] [--dry-run] [options]

  --overlay NAME       minimal, staging or production, or a directory with a slash in its name; without it, k8s/base
  --only-secrets       make the namespaces and the Secrets, and leave the rest to you
  --dry-run            check everything and tell what would be applied; changes nothing
  --context NAME       the kubectl context, instead of the present one
  --timeout SECONDS    how long to wait for each step (default 600)
  --definitions DIR    take the files of definitions.lock from here, on a machine that cannot fetch them
  --force              take back fields that somebody else has changed in the cluster by hand

Exit codes: 0 done; 1 stopped, and the last line says what, why and what next; 2 wrong usage.
TEXT
}

main() {
  parse_arguments "$@"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  trap 'fail "interrupted during $step: what was done stays and works; run the same command again to go on"' INT TERM HUP
  check_tools
  check_versions
  render
  check_placeholders
  check_definitions
  check_rights
  note_what_is_missing
  deploy
}

deploy() {
  install_definitions
  apply namespaces '!app.kubernetes.io/component'
  prepare_secrets
  if [ -n "$only_secrets" ]; then
    say "the Secrets are there; the rest is yours"
    return
  fi
  bring database database
  run_job postgres-bootstrap
  run_job stockade-migrate
  bring services service
  bring gateway gateway
  bring ingress ingress
  tell_end
}

# bring STEP COMPONENT: apply what belongs to a component, and wait for its pods.
bring() {
  if awk -v component="$2" '$5 == component { found = 1 } END { exit !found }' "$scratch/objects"; then
    apply "$1" "app.kubernetes.io/component=$2"
    wait_for_pods "$1" "app.kubernetes.io/component=$2"
  else
    say "$1: nothing in this overlay"
  fi
}

step="the start"
overlay=base
dry_run=
only_secrets=
context=()
timeout_s=600
definitions=
force=()

parse_arguments() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --dry-run) dry_run=yes ;;
      --only-secrets) only_secrets=yes ;;
      --force) force=(--force-conflicts) ;;
      -h | --help) usage && exit 0 ;;
      --overlay | --context | --timeout | --definitions)
        [ $# -gt 1 ] || misuse "$1 needs a value"
        take_value "$1" "$2"
        shift
        ;;
      *) misuse "unknown argument $1" ;;
    esac
    shift
  done
}

take_value() {
  case "$1" in
    --context) context=("--context=$2") ;;
    --definitions)
      [ -d "$2" ] || misuse "$2 is no directory"
      definitions=$2
      ;;
    --timeout)
      [[ "$2" =~ ^[1-9][0-9]{0,4}$ ]] || misuse "--timeout needs whole seconds, not $2"
      timeout_s=$2
      ;;
    --overlay)
      case "$2" in
        base | minimal | staging | production | */*) overlay=$2 ;;
        *) misuse "there is no overlay $2: choose minimal, staging or production, or name a directory as ./$2" ;;
      esac
      ;;
  esac
}

misuse() {
  printf 'deploy: %s; see deploy.sh --help\n' "$1" >&2
  exit 2
}

install_definitions() {
  local group
  [ -s "$scratch/lacking" ] || return 0
  step="the definitions"
  while read -r group; do
    if [ -n "$dry_run" ]; then
      say "definitions: would install $(lock_lines "$group" | grep -c .) of $group"
    else
      install_group "$group"
    fi
  done < <(lacking_groups)
}

install_group() {
  local sum address file
  mkdir -p "$scratch/$1"
  while read -r sum address; do
    file=$scratch/$1/${address##*/}
    fetch "$address" "$file"
    [ "$(openssl dgst -sha256 -r "$file" | cut -d ' ' -f 1)" = "$sum" ] ||
      fail "$address is not the file of definitions.lock: do not use it, and find out why"
  done < <(lock_lines "$1")
  ask "the definitions of $1" apply --server-side --force-conflicts --filename="$scratch/$1" >"$scratch/output"
  ask "the definitions of $1" wait --for=condition=Established --timeout=60s --filename="$scratch/$1" >"$scratch/output"
  say "definitions: $1 installed"
}

fetch() {
  if [ -n "$definitions" ]; then
    cp "$definitions/${1##*/}" "$2" 2>/dev/null || fail "$definitions has no ${1##*/}"
    return
  fi
  command -v curl >/dev/null || fail "curl is not on the PATH: it fetches what definitions.lock names; or use --definitions"
  curl --fail --silent --show-error --location --max-time 60 --retry 2 --output "$2" "$1" 2>"$scratch/refusal" ||
    fail "cannot fetch $1 ($(last_line "$scratch/refusal")): fetch it elsewhere and name its directory with --definitions"
}

# apply STEP SELECTOR: the objects that the selector finds. Server-side, so that two tools never undo each other's fields.
apply() {
  step="the step $1"
  if [ -n "$dry_run" ]; then
    tell_plan "$@"
    return
  fi
  if kube apply --server-side ${force[@]+"${force[@]}"} --filename="$scratch/all.yaml" --selector="$2" \
    >"$scratch/output" 2>"$scratch/refusal"; then
    say "$1: $(grep -c applied "$scratch/output") objects applied"
  else
    explain_refusal "$1"
  fi
}

explain_refusal() {
  if grep -q 'conflict' "$scratch/refusal"; then
    fail "$1: $(grep -m 1 conflict "$scratch/refusal"): somebody changed it by hand; --force takes it back"
  else
    fail "$1: $(last_line "$scratch/refusal")"
  fi
}

tell_plan() {
  # The API server can only try what it has a namespace and a definition for, and never a Job that is there already.
  if [ ! -s "$scratch/lacking" ] && [ -z "$(jobs_of "$2")" ] && kube get namespace inventory-system inventory-edge >/dev/null 2>&1; then
    kube apply --server-side --dry-run=server ${force[@]+"${force[@]}"} --filename="$scratch/all.yaml" --selector="$2" \
      >"$scratch/output" 2>"$scratch/refusal" || explain_refusal "$1"
    say "$1: the API server would accept $(grep -c applied "$scratch/output" || true) objects"
  else
    awk -v selector="$2" '
      { is = selector ~ /^!/ ? $5 == "-" : selector ~ /component=/ ? selector ~ "=" $5 "$" : selector ~ "=" $6 "$" }
      is { print $2 "/" $4 }' "$scratch/objects" >"$scratch/output"
    say "$1: would apply $(grep -c . "$scratch/output" || true) objects"
  fi
  sed 's/^/deploy:   /; s/ serverside-applied (server dry run)//' "$scratch/output"
}

jobs_of() { awk -v name="${1#*=}" '$2 == "Job" && $6 == name' "$scratch/objects"; }

# A Job that has ended cannot be changed, so the former one makes room; what it did stays.
run_job() {
  step="the Job $1"
  if [ -n "$dry_run" ]; then
    apply "$1" "app.kubernetes.io/name=$1"
    return
  fi
  ask "$1" delete job "$1" --namespace="$namespace" --ignore-not-found --cascade=foreground >"$scratch/output"
  apply "$1" "app.kubernetes.io/name=$1"
  wait_for_job "$1"
}

tell_end() {
  if [ -n "$dry_run" ]; then
    say "nothing was changed"
  else
    say "done; $tree/verify.sh proves that it works and that what is denied is denied"
    say "a first installation has no administrator yet: the end of Quick Start in README.md makes one"
  fi
}

main "$@"
