# The Secrets that the tree refers to and does not hold. Sourced by deploy.sh.
#
# shellcheck shell=bash disable=SC2016 # Dollars in single quotes are those of Go templates and awk.

readonly tls_days=1095 tls_warning_days=60

prepare_secrets() {
  local services='user-service product-catalog-service inventory-service order-service supplier-service'
  local roles='stockade_user stockade_product_catalog stockade_inventory stockade_order stockade_supplier'
  step="the secrets"
  require_secret postgres-secret 'host:1 username:1 password:12' "--from-literal=host=postgres.$namespace.svc.cluster.local \
--from-literal=username=postgres --from-file=password=<(openssl rand -hex 24)"
  require_secret jwt-secret 'secret:32' '--from-file=secret=<(openssl rand -hex 32)'
  make_secret database-roles "stockade_owner stockade_backup $roles"
  make_secret service-secrets "$services"
  make_secret postgres-tls 'tls.crt tls.key ca.crt'
  check_certificate
}

# require_secret NAME KEYS OPTIONS: it is there with all its keys, or else the command that makes it is shown.
require_secret() {
  local command="kubectl create secret generic $1 $3 -n $namespace"
  if read_secret "$1"; then
    check_keys "$1" "$2"
  elif [ -n "$dry_run" ]; then
    say "secrets: $1 is missing: $command"
  else
    fail "the Secret $1 is missing: make it and run this again: $command"
  fi
}

# make_secret NAME KEYS: made in one request, so that an interruption leaves all of it or nothing.
make_secret() {
  local key
  if read_secret "$1"; then
    check_keys "$1" "$2"
  elif [ -n "$dry_run" ]; then
    say "secrets: would make $1"
  else
    mkdir "$scratch/$1"
    if [ "$1" = postgres-tls ]; then
      (cd "$scratch/$1" && make_certificate)
    else
      for key in $2; do openssl rand -hex 32 | tr -d '\n' >"$scratch/$1/$key"; done
    fi
    ask "the Secret $1" create secret generic "$1" --namespace="$namespace" --from-file="$scratch/$1" >"$scratch/output"
    rm -rf "${scratch:?}/$1"
    say "secrets: made $1"
  fi
}

# Only keys, lengths and whether it is an example leave kubectl, never a value.
read_secret() {
  ask "the Secret $1" get secret "$1" --namespace="$namespace" --ignore-not-found \
    --output=go-template="$secret_template" >"$scratch/keys"
  [ -s "$scratch/keys" ]
}

readonly secret_template='{{range $key, $value := .data}}{{$text := base64decode $value}}{{$key}} {{len $text}}
  {{- if ge (len $text) 5}}{{if eq (slice $text 0 5) "YOUR_"}} example{{end}}{{end}}{{"\n"}}{{end}}'

# check_keys NAME KEYS: each of them, `KEY` or `KEY:LENGTH`, is there and long enough.
check_keys() {
  local wanted key least length again="delete it and make it again"
  for wanted in $2; do
    key=${wanted%:*} least=1
    [ "$key" = "$wanted" ] || least=${wanted#*:}
    length=$(awk -v key="$key" '$1 == key { print $2 ($3 ? "-" $3 : "") }' "$scratch/keys")
    case "$length" in
      '') fail "the Secret $1 lacks the key $key: add it with \`kubectl edit secret $1 -n $namespace\` (values in base64)" ;;
      *-example) fail "the Secret $1 has the example of the documentation as its $key: $again" ;;
    esac
    [ "$length" -ge "$least" ] || fail "the Secret $1 has $length characters as its $key and needs $least: $again"
  done
}

# An authority that signs one certificate and is forgotten. Whoever wants cert-manager to do it makes the Secret beforehand.
make_certificate() {
  local name=postgres.$namespace.svc.cluster.local
  cat >config <<TEXT
[req]
distinguished_name = subject
[subject]
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = @names
[names]
DNS.1 = $name
DNS.2 = postgres
DNS.3 = postgres.$namespace
DNS.4 = postgres.$namespace.svc
DNS.5 = postgres-0.postgres-headless.$namespace.svc.cluster.local
TEXT
  {
    openssl ecparam -name prime256v1 -genkey -noout -out ca.pem
    openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out tls.key
    openssl req -new -x509 -config config -extensions authority -key ca.pem -subj "/CN=stockade database" \
      -days "$tls_days" -out ca.crt
    openssl req -new -config config -key tls.key -subj "/CN=postgres" -out request
    openssl x509 -req -in request -CA ca.crt -CAkey ca.pem -set_serial "0x$(openssl rand -hex 15)" -days "$tls_days" \
      -extfile config -extensions server -out tls.crt
  } 2>"$scratch/refusal" || fail "openssl made no certificate: $(last_line "$scratch/refusal")"
  rm -f config ca.pem request
}

check_certificate() {
  local end
  [ -z "$dry_run" ] || return 0
  ask "the Secret postgres-tls" get secret postgres-tls --namespace="$namespace" \
    --output=go-template='{{index .data "tls.crt" | base64decode}}' >"$scratch/tls.crt"
  end=$(openssl x509 -in "$scratch/tls.crt" -noout -enddate 2>/dev/null | cut -d = -f 2) ||
    fail "the Secret postgres-tls holds no certificate: delete it and run this again"
  openssl x509 -in "$scratch/tls.crt" -noout -checkend $((tls_warning_days * 86400)) >/dev/null ||
    say "note: the certificate of the database ends on $end; docs/TROUBLESHOOTING_GUIDE.md says how to renew it"
}
