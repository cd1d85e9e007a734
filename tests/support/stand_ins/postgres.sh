#!/bin/sh
# Makes the data folder as the POSTGRES_ variables say where there is none yet, then becomes the server:
# `postgres` and options for it may be given, as to the upstream image.
set -eu
data=/var/lib/postgresql/18/docker
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; }
if [ ! -s "$data/PG_VERSION" ]; then
  mkdir -p "$data"
  chown -R postgres:postgres /var/lib/postgresql
  printf '%s' "$POSTGRES_PASSWORD" >/var/lib/postgresql/password
  chown postgres /var/lib/postgresql/password
  as_postgres initdb --pgdata="$data" --username="${POSTGRES_USER:-postgres}" --auth=trust \
    --pwfile=/var/lib/postgresql/password ${POSTGRES_INITDB_ARGS:-}
  rm /var/lib/postgresql/password
  # As upstream: inside of the container no password is asked for, from others it is.
  printf 'host all all all scram-sha-256\n' >>"$data/pg_hba.conf"
  if [ "${POSTGRES_DB:-postgres}" != postgres ]; then
    printf 'CREATE DATABASE %s\n' "$POSTGRES_DB" | as_postgres postgres --single -D "$data" postgres
  fi
fi
[ "${1:-}" != postgres ] || shift
exec setpriv --reuid=postgres --regid=postgres --clear-groups -- postgres -D "$data" -c 'listen_addresses=*' "$@"
