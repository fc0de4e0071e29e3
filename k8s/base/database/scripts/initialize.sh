#!/bin/sh
# Makes the database cluster on a new volume; on every later start it only looks and leaves everything as it is.
#
# Needs PGDATA, POSTGRES_ARCHIVE, POSTGRES_SECRET (a directory with `username` and `password` of the administrator) and
# POSTGRES_ROLES (a directory with `stockade_backup`, the password of the role that takes base backups).
set -eu
umask 077

stop() {
  echo "initialize: $*" >&2
  exit 1
}

if [ -f "$PGDATA/PG_VERSION" ]; then
  # Kubernetes may open the volume to its group, and PostgreSQL refuses a data directory that its group can write to.
  chmod 0700 "$PGDATA"
  echo "initialize: $PGDATA holds a cluster of version $(cat "$PGDATA/PG_VERSION"); nothing to do"
  exit 0
fi
if [ -d "$PGDATA" ] && [ -n "$(ls -A "$PGDATA")" ]; then
  stop "$PGDATA is not empty and holds no cluster: look at it, and move it away if it can go"
fi
# An empty volume beside an archive with backups is a database that was lost, not one that is new: a new cluster would
# answer with no data, and its WAL would mix with that of the lost one.
if [ -n "$(ls -A "$POSTGRES_ARCHIVE/base" "$POSTGRES_ARCHIVE/wal" 2>/dev/null | grep -v ':$')" ]; then
  stop "the data volume is empty but the archive is not: restore it (docs/restore.md), or clear the archive to start anew"
fi

administrator=$(cat "$POSTGRES_SECRET/username")
backup_password=$(sed "s/'/''/g" "$POSTGRES_ROLES/stockade_backup")
[ -n "$administrator" ] && [ -s "$POSTGRES_SECRET/password" ] || stop "postgres-secret needs username and password"
[ -n "$backup_password" ] || stop "database-roles needs stockade_backup"

# Made aside and renamed, so that a pod which is killed meanwhile leaves nothing that looks like a cluster.
staging="$PGDATA.new"
rm -rf "$staging"
mkdir -p "$(dirname "$PGDATA")"
# Huge pages are off because a node that has some, and a pod that may have none, end initdb with a bus error. The
# character classes come from the locale, which exists in every image; the order of text does not depend on it.
initdb --pgdata="$staging" --username="$administrator" --pwfile="$POSTGRES_SECRET/password" \
  --auth-host=scram-sha-256 --auth-local=peer --data-checksums --encoding=UTF8 \
  --locale=C.UTF-8 --locale-provider=builtin --builtin-locale=C.UTF-8 --set=huge_pages=off

# Single-user mode reads one statement a line. The monitor has no password, so it can enter through the socket only.
postgres --single -c exit_on_error=on -D "$staging" postgres >/dev/null <<SQL
CREATE ROLE stockade_monitor LOGIN CONNECTION LIMIT 4
GRANT pg_monitor TO stockade_monitor
CREATE ROLE stockade_backup LOGIN REPLICATION CONNECTION LIMIT 4 PASSWORD '$backup_password'
CREATE EXTENSION pg_stat_statements
SQL

[ ! -d "$PGDATA" ] || rmdir "$PGDATA"
mv "$staging" "$PGDATA"
sync "$(dirname "$PGDATA")"
echo "initialize: made a new cluster in $PGDATA"
