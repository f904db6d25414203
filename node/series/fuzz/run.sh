#!/bin/sh
# Fuzzes every decoder for some seconds each, guided by coverage, with the stable compiler (no sanitizer: the crate has no unsafe code).
#   node/series/fuzz/run.sh [SECONDS [TARGET…]]      default: 25 seconds, all targets
# What made one fail lies beside its corpus in FUZZ_DIR (default: under the user's cache directory). Exit code 1 where one failed.
set -eu
cd "$(dirname "$0")"
seconds=${1:-25}
[ $# -eq 0 ] || shift
work=${FUZZ_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark/fuzz}
export CARGO_TARGET_DIR="$work/target"
host=$(rustc -vV | sed -n 's/^host: //p')
counters="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
RUSTFLAGS="--cfg fuzzing $counters -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1" \
    cargo build --quiet --release --target "$host"
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\([a-z]*\)"$/\1/p' Cargo.toml)
failed=0
for target in "$@"; do
    mkdir -p "$work/$target"
    if "$CARGO_TARGET_DIR/$host/release/$target" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="$work/$target-" "$work/$target" > "$work/$target.log" 2>&1; then
        echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log") inputs, nothing found"
    else
        echo "$target: FAILED, see $work/$target.log"
        failed=1
    fi
done
exit $failed
