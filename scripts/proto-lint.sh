#!/usr/bin/env bash
# Lints the contract with buf, fetched once from PyPI into the cache; needs python3 and the network the first time.
. "$(dirname "$0")/lib.sh"

buf=$cache/tools/buf/bin/buf
if ! [ -x "$buf" ]; then
    have python3 || die "python3 is missing"
    say "fetching buf into $cache/tools/buf"
    python3 -m venv "$cache/tools/buf"
    "$cache/tools/buf/bin/pip" install -q 'buf-bin==1.75.*'
fi
cd "$root/proto"
"$buf" lint
say "proto: clean"
