#!/usr/bin/env bash
# Installs what a fresh Debian lacks: a C compiler for the bundled SQLite and mimalloc,
# with `test` also the servers that the tests start themselves (PostgreSQL, Redis, and those
# of other families that read what the edge writes), and with
# `chaos` what moves the clock of that run. With `templates` it brings the toolchains that the
# templates of plugins are built with. Does nothing when all is there.
# (plugins/build.sh brings its own compiler where rustup cannot.)
set -euo pipefail

# As plugins/templates/c/README.md has it.
WIT_BINDGEN_CLI=0.63.0

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
if [ "${1:-}" = test ]; then
    command -v nginx >/dev/null || missing+=(nginx-light)
    command -v haproxy >/dev/null || missing+=(haproxy)
    command -v node >/dev/null || missing+=(nodejs)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
fi
if [ "${1:-}" = chaos ] && ! has_faketime; then
    missing+=(libfaketime)
fi
# The toolchains' own languages; componentize-qjs wants node 18 or later.
if [ "${1:-}" = templates ]; then
    command -v npm >/dev/null || missing+=(nodejs npm)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
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

# The toolchains, by package name and in the versions that the templates name, outside the
# clone. One that is there stays; each step is bounded in time.
toolchains() {
    local here tools npm venv package
    here=$(cd "$(dirname "$0")/.." && pwd)/plugins/templates
    tools=${XDG_CACHE_HOME:-$HOME/.cache}/leanvibe-edge/author-tools
    npm=$tools/npm venv=$tools/venv
    mkdir -p "$tools/bin" "$npm"
    if ! cmp -s "$here/js/package.json" "$npm/package.json" || [ ! -x "$npm/node_modules/.bin/componentize-qjs" ]; then
        timeout 300 npm install --silent --no-audit --no-fund --prefix "$npm" \
            "$(sed -n 's/.*"\(componentize-qjs\)": "\(.*\)".*/\1@\2/p' "$here/js/package.json")" ||
            stop "npm cannot install componentize-qjs"
        cp "$here/js/package.json" "$npm/package.json"
    fi
    cat "$here/python/requirements.txt" "$here/c/requirements.txt" >"$tools/wanted"
    if ! cmp -s "$tools/wanted" "$tools/requirements.txt"; then
        python3 -m venv "$venv" || stop "python3 cannot make a virtual environment"
        timeout 600 "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$tools/wanted" ||
            stop "pip cannot install componentize-py and ziglang"
        cp "$tools/wanted" "$tools/requirements.txt"
    fi
    package="wit-bindgen-cli $WIT_BINDGEN_CLI"
    if [ "$("$tools/cargo/bin/wit-bindgen" --version 2>/dev/null)" != "$package" ]; then
        timeout 900 cargo install --quiet --locked --debug wit-bindgen-cli --version "$WIT_BINDGEN_CLI" \
            --no-default-features --features c --root "$tools/cargo" --target-dir "$tools/build" ||
            stop "cargo cannot install wit-bindgen-cli"
        rm -rf "$tools/build"
    fi
    ln -sf "$npm/node_modules/.bin/componentize-qjs" "$venv/bin/componentize-py" \
        "$venv/bin/python-zig" "$tools/cargo/bin/wit-bindgen" "$tools/bin/"
}
stop() {
    echo "setup: $*" >&2
    exit 1
}
# Parsers of Python, for tests/conformance.
readers() {
    local wanted venv
    wanted=$(cd "$(dirname "$0")/.." && pwd)/tests/conformance/readers/requirements.txt
    venv=${XDG_CACHE_HOME:-$HOME/.cache}/leanvibe-edge/readers
    cmp -s "$wanted" "$venv/requirements.txt" && return
    python3 -m venv "$venv" || stop "python3 cannot make a virtual environment"
    timeout 300 "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" ||
        stop "pip cannot install the parsers of tests/conformance"
    cp "$wanted" "$venv/requirements.txt"
}
case "${1:-}" in
templates) toolchains ;;
test) readers ;;
esac
