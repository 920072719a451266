#!/usr/bin/env bash
# Fuzzes the control API from its own OpenAPI document: starts an edge on loopback with two
# tenants, lets schemathesis (PyPI) make requests up and down the schema, and fails on any
# 5xx but the documented 501, on an undocumented shape of an answer, and on an endpoint that
# works without its token. Bounded by FUZZ_SECONDS (120). Run by `make fuzz-api`.
#
#   LEANVIBE_EDGE_BIN  the program; built by the caller
#   STORE_URL          a PostgreSQL to run on; SQLite in a temporary folder when absent
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds="${FUZZ_SECONDS:-120}"
folder="$(mktemp -d)"
tools="${XDG_CACHE_HOME:-$HOME/.cache}/leanvibe-edge/schemathesis"
edge_pid=""
finish() {
  if [ -n "$edge_pid" ]; then kill "$edge_pid" 2>/dev/null || true; wait "$edge_pid" 2>/dev/null || true; fi
  rm -rf "$folder"
}
trap finish EXIT

if [ ! -x "$tools/bin/st" ]; then
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet schemathesis
fi

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
control="127.0.0.1:$(port)"
token="fuzz-$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
export LEANVIBE_EDGE_ADMIN_TOKEN="$token"
export LEANVIBE_EDGE__EDGE__LISTEN="127.0.0.1:0"
export LEANVIBE_EDGE__CONTROL__LISTEN="$control"
export LEANVIBE_EDGE__DATA__DIR="$folder"
export LEANVIBE_EDGE__LOG__FORMAT=json
if [ -n "${STORE_URL:-}" ]; then export LEANVIBE_EDGE__STORE__URL="$STORE_URL"; fi
"${LEANVIBE_EDGE_BIN:?the program to fuzz}" serve > "$folder/edge.log" 2>&1 &
edge_pid=$!
for _ in $(seq 300); do
  curl --silent --fail --output /dev/null "http://$control/readyz" && break
  kill -0 "$edge_pid" || { cat "$folder/edge.log"; exit 1; }
  sleep 0.1
done

create() {
  curl --silent --show-error --fail "http://$control/api/v1/admin/tenants" \
    --header "Authorization: Bearer $token" --header 'Content-Type: application/json' \
    --data "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'
}
parent="$(create '{"organization_name":"Fuzz","slug":"fuzz-'"$RANDOM$RANDOM"'","admin_email":"a@b.example","plan":"enterprise","data_residency":"us"}')"

cat > "$folder/schemathesis.toml" <<TOML
base-url = "http://$control"
headers = { Authorization = "Bearer $token" }

[parameters]
tenant_id = "$parent"

[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501"]
TOML

# Refusing what the schema allows (a taken slug, a closed month) is the API's business, and
# so is accepting more than the schema says (text in a query that is a number).
"$tools/bin/st" --config-file "$folder/schemathesis.toml" run \
  --checks not_a_server_error,response_schema_conformance,content_type_conformance,ignored_auth,unsupported_method \
  --max-time "$seconds" --continue-on-failure --suppress-health-check all --no-color \
  --request-timeout 20 "http://$control/api/v1/openapi.json"
