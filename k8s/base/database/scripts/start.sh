#!/bin/sh
# Runs PostgreSQL in the foreground with the settings of this tree; further options are passed on.
#
# Every path is named here and nowhere else, so that the pod, the restore and the restore drill of the tests start the
# same server from the same files. Needs PGDATA, POSTGRES_SETTINGS, POSTGRES_TLS and POSTGRES_SOCKETS; archive.sh, which
# the server calls, needs POSTGRES_SCRIPTS and POSTGRES_ARCHIVE.
set -eu

exec postgres -D "$PGDATA" \
  -c config_file="$POSTGRES_SETTINGS/postgresql.conf" \
  -c hba_file="$POSTGRES_SETTINGS/pg_hba.conf" \
  -c ident_file="$POSTGRES_SETTINGS/pg_ident.conf" \
  -c ssl_cert_file="$POSTGRES_TLS/tls.crt" \
  -c ssl_key_file="$POSTGRES_TLS/tls.key" \
  -c unix_socket_directories="$POSTGRES_SOCKETS" \
  "$@"
