#!/usr/bin/env bash
# Runs a command with the environment that `make setup` wrote: scripts/run.sh cargo build
. "$(dirname "$0")/lib.sh"
load_env
cd "$root"
exec "$@"
