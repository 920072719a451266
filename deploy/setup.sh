#!/usr/bin/env bash
# Installs what a fresh Debian lacks to build and test: a C compiler for the bundled
# SQLite and mimalloc, and, where rustup cannot add the Wasm target, Debian's compiler
# for it (see plugins/build.sh). Does nothing when all is there.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v make >/dev/null || missing+=(make)

if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "setup: please install: ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
    echo "setup: please install Rust 1.95 with rustup" >&2
    exit 1
fi
