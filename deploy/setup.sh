#!/usr/bin/env bash
# Installs what a fresh Debian lacks: a C compiler for the bundled SQLite and mimalloc,
# with `test` also the PostgreSQL and Redis that the tests start themselves, and with
# `chaos` what moves the clock of that run. Does nothing when all is there.
# (plugins/build.sh brings its own compiler where rustup cannot.)
set -euo pipefail

missing=()
has_postgres() {
    command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}
has_faketime() {
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null
}
case "${1:-}" in test | chaos)
    has_postgres || missing+=(postgresql)
    command -v redis-server >/dev/null || missing+=(redis-server)
    ;;
esac
if [ "${1:-}" = chaos ] && ! has_faketime; then
    missing+=(libfaketime)
fi
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v make >/dev/null || missing+=(make)

if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup: please install: ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    # The tests run servers of their own; Debian's would only take the ports, or fail to.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
    echo "setup: please install Rust 1.95 with rustup" >&2
    exit 1
fi
