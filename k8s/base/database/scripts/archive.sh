#!/bin/sh
# PostgreSQL's archive_command: archive.sh PATH NAME copies one WAL file into POSTGRES_ARCHIVE/wal.
#
# Answers 0 only when the copy is complete and on the disk, because PostgreSQL then forgets the original. A copy is
# never overwritten. Compressed because a segment that archive_timeout closes early is 16 MiB of which most is zero.
set -eu
umask 077

path=$1
name=$2
directory="$POSTGRES_ARCHIVE/wal"
target="$directory/$name.gz"
partial="$directory/.$name.partial"

mkdir -p "$directory"
if [ -e "$target" ]; then
  # PostgreSQL asks again when it was killed between our answer and its own note of it.
  if gzip -dc "$target" | cmp -s - "$path"; then
    exit 0
  fi
  echo "archive: $target exists and differs: a second server writes to this archive, or it is damaged" >&2
  exit 1
fi
gzip -1 -n -c "$path" >"$partial"
sync "$partial"
mv "$partial" "$target"
sync "$directory"
