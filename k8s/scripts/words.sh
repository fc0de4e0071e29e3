# What deploy.sh and verify.sh have in common: how they speak, stop and ask kubectl. Sourced; needs `program`, `context`
# and `scratch`.
#
# shellcheck shell=bash disable=SC2016 # Dollars in single quotes are those of Go templates and awk.

say() { printf '%s: %s\n' "$program" "$*"; }

# What stops may be said by a trap, in the midst of a command whose standard error goes elsewhere.
exec 3>&2

fail() {
  printf '%s: stopped: %s\n' "$program" "$*" >&3
  exit 1
}

kube() { kubectl ${context[@]+"${context[@]}"} "$@"; }

# Runs kubectl for its output; when it refuses, $1 says what for and kubectl's own last line says why.
ask() {
  local what=$1
  shift
  kube --request-timeout=60s "$@" 2>"$scratch/refusal" || fail "$what: $(last_line "$scratch/refusal")"
}

last_line() {
  local line
  line=$(grep -v '^[[:space:]]*$' "$1" | tail -n 1) || true
  printf '%s' "${line:-no reason was given}"
}

current_context() {
  if [ ${#context[@]} -gt 0 ]; then
    printf '%s' "${context[0]#--context=}"
  else
    kubectl config current-context 2>/dev/null || printf 'none'
  fi
}
