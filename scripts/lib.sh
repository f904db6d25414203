# Sourced by every script: where things are, and how a script speaks. Does nothing by itself.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/tidemark
env_file=$root/.env.setup

say() { printf '%s\n' "$*"; }
note() { printf '  %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Brings in what `make setup` found. A variable that is set already wins, so a caller's own choice always holds.
load_env() {
    local key value
    if [ -f "$env_file" ]; then
        while IFS='=' read -r key value; do
            case $key in
                '' | '#'*) ;;
                PATH_PREPEND) PATH=$value:$PATH ;;
                *) [ -n "${!key+set}" ] || export "$key=$value" ;;
            esac
        done <"$env_file"
    fi
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
    export PATH
}
