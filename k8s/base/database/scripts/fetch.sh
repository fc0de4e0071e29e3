#!/bin/sh
# PostgreSQL's restore_command: fetch.sh NAME PATH brings one WAL file back from the archive.
#
# PostgreSQL also asks for files that do not exist, to find out where the history ends; then it gets 1.
set -eu

[ -f "$POSTGRES_ARCHIVE/wal/$1.gz" ] || exit 1
# Above 125 PostgreSQL stops the recovery instead of taking a damaged copy for the end of the history.
gzip -dc "$POSTGRES_ARCHIVE/wal/$1.gz" >"$2" || exit 126
