#!/usr/bin/env bash
# Makes a new project of each template in a temporary folder, builds it with its language's
# toolchain and runs its golden cases: what an author does in the first five minutes. Called
# by `make templates`, after `deploy/setup.sh templates`.
set -euo pipefail

# Seconds for one step of one language; building the standard library for Rust took 100 of
# CPU time, on a machine that was busy 240.
step_seconds=600
# Where deploy/setup.sh puts the toolchains, and where Rust's builds are kept between runs.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/leanvibe-edge
export PATH=$cache/author-tools/bin:$PATH
export CARGO_TARGET_DIR=$cache/author-tools/target
# What a caller sets for the host's build has no place in a guest's.
unset RUSTC RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER

edge=${LEANVIBE_EDGE_BIN:?set LEANVIBE_EDGE_BIN to the leanvibe-edge binary}
edge=$(realpath "$edge")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

failed=0
for language in rust js python c; do
    echo "== template $language"
    begun=$SECONDS
    if "$edge" plugin new --lang "$language" "first-$language" >/dev/null &&
        timeout "$step_seconds" "$edge" plugin build --dir "first-$language" &&
        timeout "$step_seconds" "$edge" plugin test --dir "first-$language"; then
        echo "   $((SECONDS - begun)) s"
    else
        echo "template $language: FAILED" >&2
        failed=1
    fi
done
exit "$failed"
