#!/bin/sh
set -eu
[ "$1" != redis-server ] || set -- "$@" --protected-mode no
exec "$@"
