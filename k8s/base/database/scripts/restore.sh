#!/bin/sh
# Restores the cluster from the archive to a moment, and only then puts it in the place of the present one.
#
# The server must be stopped. RESTORE_TIME is a moment with its zone, such as `2026-11-24 09:30:00+00`, or `latest`;
# everything that was committed until then is there afterwards, and nothing else. RESTORE_TIMELINE chooses the history
# where earlier restores made several: `latest` (default) or a number. Needs what start.sh needs, and POSTGRES_ARCHIVE.
# The present cluster is kept beside the new one; whatever fails before the end leaves it untouched.
set -eu
umask 077

stop() {
  echo "restore: $*" >&2
  exit 1
}

base="$POSTGRES_ARCHIVE/base"
present="$PGDATA"
restored="$present.restored"
aside="$present.before-$(date -u +%Y%m%dT%H%M%SZ)"
timeline=${RESTORE_TIMELINE:-latest}
started_s=$(date +%s)

# Which backup: the newest one that had ended by then.
if [ "$RESTORE_TIME" = latest ]; then
  bound=99999999T999999Z
else
  case "$RESTORE_TIME" in
    *Z | *[+-][0-9][0-9] | *[+-][0-9][0-9]:[0-9][0-9]) ;;
    *) stop "RESTORE_TIME needs its zone, such as 2026-11-24 09:30:00+00, or is \`latest\`; it is: $RESTORE_TIME" ;;
  esac
  bound=$(date -u -d "$RESTORE_TIME" +%Y%m%dT%H%M%SZ) || stop "RESTORE_TIME is not a moment: $RESTORE_TIME"
fi
chosen=
for name in $(ls -1 "$base" 2>/dev/null | grep -E '^[0-9]{8}T[0-9]{6}Z$' | sort); do
  # Either before the bound or equal to it: sh has no "not after" for strings.
  if [ "$name" = "$bound" ] || [ "$name" \< "$bound" ]; then chosen=$name; fi
done
[ -n "$chosen" ] || stop "no base backup had ended by $RESTORE_TIME; there are: $(ls "$base" 2>/dev/null | tr '\n' ' ')"
echo "restore: checking base backup $chosen"
pg_verifybackup --quiet "$base/$chosen" || stop "base backup $chosen is damaged; move it away to use the one before"

rm -rf "$restored"
mkdir -p "$(dirname "$present")"
needed_kb=$(du -sk "$base/$chosen" | cut -f1)
free_kb=$(df -Pk "$(dirname "$present")" | awk 'NR == 2 { print $4 }')
[ "$free_kb" -gt $((needed_kb + 1048576)) ] || stop \
  "$((needed_kb / 1024 + 1024)) MB are needed beside the present cluster and $((free_kb / 1024)) MB are free: enlarge the volume"
cp -a "$base/$chosen" "$restored"
chmod 0700 "$restored"

# What the lost server had not archived yet, where its volume is still there. PostgreSQL marks as ready what is complete;
# the rest can only be the segment that was being written, which recovery reads as far as its checksums hold.
if [ -d "$present/pg_wal" ]; then
  for mark in "$present"/pg_wal/archive_status/*.ready; do
    name=$(basename "$mark" .ready)
    [ -f "$present/pg_wal/$name" ] || continue
    sh "$POSTGRES_SCRIPTS/archive.sh" "$present/pg_wal/$name" "$name"
    echo "restore: archived $name, which the server had not"
  done
  for path in "$present"/pg_wal/????????????????????????; do
    name=$(basename "$path")
    if [ -f "$path" ] && [ ! -e "$POSTGRES_ARCHIVE/wal/$name.gz" ] && [ ! -e "$restored/pg_wal/$name" ]; then
      cp "$path" "$restored/pg_wal/$name"
    fi
  done
fi

# Nobody may connect before the history has been replayed, so the first answer means that it has; then the monitor may,
# through the socket. Archiving stays off: a new history may only enter the archive when it is certain to go on.
touch "$restored/recovery.signal"
echo "local postgres stockade_monitor peer map=pod" >"$restored.hba"
set -- -c listen_addresses= -c hba_file="$restored.hba" -c ssl=off -c log_connections= \
  -c hot_standby=off -c archive_mode=off \
  -c restore_command='sh "$POSTGRES_SCRIPTS/fetch.sh" "%f" "%p"' -c recovery_target_timeline="$timeline"
[ "$RESTORE_TIME" = latest ] || set -- "$@" -c recovery_target_time="$RESTORE_TIME" -c recovery_target_action=promote
echo "restore: winding $chosen forward to $RESTORE_TIME"
PGDATA="$restored" sh "$POSTGRES_SCRIPTS/start.sh" "$@" &
server=$!
trap 'kill -INT "$server" 2>/dev/null || true' EXIT
until pg_isready --quiet --host="$POSTGRES_SOCKETS" --username=stockade_monitor --dbname=postgres; do
  kill -0 "$server" 2>/dev/null || stop "PostgreSQL gave up (its reason is above); the present cluster is untouched"
  sleep 0.5
done
last=$(psql --host="$POSTGRES_SOCKETS" --username=stockade_monitor --dbname=postgres --no-psqlrc --tuples-only --no-align \
  --command="SELECT coalesce(pg_last_xact_replay_timestamp()::text, 'that of the base backup')")
kill -INT "$server"
wait "$server" || stop "the restored server did not stop cleanly; the present cluster is untouched"
trap - EXIT
rm "$restored.hba"

for path in "$restored"/pg_wal/*.history; do
  [ ! -e "$path" ] || sh "$POSTGRES_SCRIPTS/archive.sh" "$path" "$(basename "$path")"
done
[ ! -e "$present" ] || mv "$present" "$aside"
mv "$restored" "$present"
sync "$(dirname "$present")"
echo "restore: done in $(($(date +%s) - started_s)) s; the last transaction is of $last"
[ ! -e "$aside" ] || echo "restore: the former cluster is kept in $aside; remove it when you no longer need it"
