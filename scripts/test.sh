#!/usr/bin/env bash
# All tests of the workspace, with cargo-nextest where there is one. Further arguments go to it: test.sh -p tidemark-node
. "$(dirname "$0")/lib.sh"
load_env
cd "$root"
if [ $# = 0 ]; then set -- --workspace; fi
if have cargo-nextest; then
    exec cargo nextest run --locked "$@"
fi
# Tests run the examples of the client too, which nextest builds by itself.
cargo build --locked -p tidemark-client --examples
exec cargo test --locked --lib --bins --tests "$@"
