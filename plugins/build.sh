#!/bin/sh
# Builds the first-party policies into components: plugins/dist/<name>.wasm.
#
# 1. core modules for wasm32-unknown-unknown, by the rustup toolchain when it has (or can
#    add) the target, else by Debian's rustc-web building the standard library itself;
# 2. components of them, by `$LEANVIBE_EDGE_BIN plugin componentize`.
#
# An output is replaced only when its bytes changed, in one rename: the edge watches the
# folder and must neither reload for nothing nor read half a file.
set -eu

target=wasm32-unknown-unknown
# Bytes of stack. 32 KiB: the deepest call needs a few; stack, data and heap then fit in
# one page, which is all a fresh instance has to reset.
stack_bytes=32768

here=$(cd "$(dirname "$0")" && pwd)
dist=$here/dist
# Every crate beside this script that makes a Wasm library.
plugins=$(cd "$here" && grep -l cdylib ./*/Cargo.toml | sed "s|^\./||; s|/Cargo.toml$||")
# A caller's target folder is kept apart from the host's; everything else that would
# change what is built is dropped.
out=$here/target
if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    case $CARGO_TARGET_DIR in
        /*) out=$CARGO_TARGET_DIR/plugins ;;
        *) out=$PWD/$CARGO_TARGET_DIR/plugins ;;
    esac
fi
unset RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTC_BOOTSTRAP RUSTDOCFLAGS \
    CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET_DIR \
    CARGO_ENCODED_RUSTFLAGS CARGO_UNSTABLE_BUILD_STD CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER
# The paths of this machine have no place in a component, and the same source gives the
# same bytes wherever it lies.
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
export CARGO_TARGET_DIR="$out"
export RUSTFLAGS="-Clink-arg=-zstack-size=$stack_bytes --remap-path-prefix=$here=plugins --remap-path-prefix=$registry=registry"

fail() {
    echo "plugins/build.sh: $*" >&2
    exit 1
}

edge=${LEANVIBE_EDGE_BIN:-}
[ -n "$edge" ] || fail "set LEANVIBE_EDGE_BIN to the leanvibe-edge binary; it makes the components"
case $edge in
    /* | "") ;;
    */*) edge=$PWD/$edge ;;
esac
command -v "$edge" >/dev/null || fail "LEANVIBE_EDGE_BIN=$edge is no program"
command -v cargo >/dev/null || fail "cargo is missing; install Rust by https://rustup.rs"

cd "$here"
sysroot=$(rustc --print sysroot) || fail "rustc does not run; install Rust by https://rustup.rs"

has_target() {
    [ -d "$sysroot/lib/rustlib/$target/lib" ]
}

# Asks rustup's server once per target folder: an answer "unreachable" is remembered.
add_target() {
    tried=$out/.target-add-failed
    [ ! -e "$tried" ] || return 1
    command -v rustup >/dev/null || return 1
    if ! timeout 60 rustup target add "$target" >/dev/null 2>&1; then
        mkdir -p "$out" && : >"$tried"
        return 1
    fi
    has_target
}

build_with_rustup() {
    for name in $plugins; do
        cargo build --quiet --locked --release --target "$target" --package "$name"
    done
}

install_debian_toolchain() {
    [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/src/rust/library ] && return
    wanted="rustc-web rust-web-src"
    hint="the standard library for $target is missing; install it by 'rustup target add $target' or 'apt-get install $wanted'"
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "$hint"
    echo "plugins/build.sh: installing Debian's $wanted (rustup can't add $target here)" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $wanted; } \
        >/dev/null 2>&1 || fail "$hint"
}

build_with_debian() {
    install_debian_toolchain
    host=$(rustc -vV | sed -n 's/^host: //p')
    linkers=$sysroot/lib/rustlib/$host/bin
    for name in $plugins; do
        PATH=$linkers:$linkers/gcc-ld:$PATH \
            RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=/usr/lib/rustlib/src/rust=rust" \
            cargo build --quiet --locked --release --target "$target" \
            -Zbuild-std=std,panic_abort --package "$name"
    done
}

# One package at a time: what one asks of a shared crate (std) is not forced on the rest.
if has_target || add_target; then
    build_with_rustup
else
    build_with_debian
fi

mkdir -p "$dist"
for name in $plugins; do
    core=$out/$target/release/$(echo "$name" | tr - _).wasm
    new=$dist/.$name.wasm.$$
    trap 'rm -f "$new"' EXIT
    "$edge" plugin componentize "$core" -o "$new" || fail "$name can't be made a component"
    if cmp -s "$new" "$dist/$name.wasm"; then
        rm -f "$new"
    else
        mv -f "$new" "$dist/$name.wasm"
        echo "plugins/dist/$name.wasm $(wc -c <"$dist/$name.wasm") bytes"
    fi
done
