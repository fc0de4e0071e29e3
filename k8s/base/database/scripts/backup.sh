#!/bin/sh
# Takes a base backup into POSTGRES_ARCHIVE/base, proves it, and removes what it makes superfluous.
#
# The server and the role come from libpq's own variables (PGHOST, PGUSER, PGSSLMODE, ...); PGPASSWORD_FILE, ours, names the
# file of the password. Needs POSTGRES_ARCHIVE and BACKUPS_KEPT, the number of base backups that stay; WAL stays from the
# oldest of them on.
set -eu
umask 077

if [ -n "${PGPASSWORD_FILE:-}" ]; then
  PGPASSWORD=$(cat "$PGPASSWORD_FILE")
  export PGPASSWORD
fi

stop() {
  echo "backup: $*" >&2
  exit 1
}

list_backups() {
  ls -1 "$base" | grep -E '^[0-9]{8}T[0-9]{6}Z$' | sort
}

first_segment() {
  sed -n 's/^START WAL LOCATION: .* (file \([0-9A-F]\{24\}\))$/\1/p' "$base/$1/backup_label"
}

[ "$BACKUPS_KEPT" -ge 1 ] || stop "BACKUPS_KEPT must be 1 or more"
base="$POSTGRES_ARCHIVE/base"
partial="$base/.partial"
mkdir -p "$base"
# What an earlier run left that did not end; two runs at a time are the CronJob's to prevent.
rm -rf "$partial"

started_s=$(date +%s)
# A fast checkpoint costs some I/O at once; a spread one would make every backup take a quarter of an hour.
pg_basebackup --pgdata="$partial" --format=plain --wal-method=stream --checkpoint=fast \
  --manifest-checksums=SHA256 --no-password || stop "pg_basebackup failed; nothing was kept"
pg_verifybackup --quiet "$partial" || stop "the copy is not what the server sent; nothing was kept"

# Named by the second after its end, because a backup can only be wound forward: to a moment at or after that.
sleep 1
name=$(date -u +%Y%m%dT%H%M%SZ)
mv "$partial" "$base/$name"
sync "$base"
echo "backup: $name verified, $(du -sm "$base/$name" | cut -f1) MB, $(($(date +%s) - started_s)) s"

# The server closes and archives the first segment at the end of the backup. Without it in the archive this backup could
# be restored as it is, but not to a later moment: archiving is broken, and nothing older may be removed.
segment=$(first_segment "$name")
waited_s=0
until [ -f "$POSTGRES_ARCHIVE/wal/$segment.gz" ]; do
  [ "$waited_s" -lt "${ARCHIVE_WAIT_S:-120}" ] || stop "$segment is not in the archive: see pg_stat_archiver and the server's log"
  sleep 1
  waited_s=$((waited_s + 1))
done

for old in $(list_backups | head -n "-$BACKUPS_KEPT"); do
  # Renamed first: a removal that is cut short must not leave half a backup under the name of a whole one.
  mv "$base/$old" "$base/.removed-$old"
  echo "backup: removing $old, since the newest $BACKUPS_KEPT are kept"
done
rm -rf "$base"/.removed-*
oldest=$(list_backups | head -n 1)
pg_archivecleanup --strip-extension=.gz --clean-backup-history "$POSTGRES_ARCHIVE/wal" "$(first_segment "$oldest")"
echo "backup: any moment since $oldest can be restored"
