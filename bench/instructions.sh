#!/bin/sh
# Instructions of the codec, counted by callgrind (Debian: valgrind) on made series, against bench/instructions.txt.
#   bench/instructions.sh            compares; exit code 1 where a count grew by more than TOLERANCE per cent
#   bench/instructions.sh --renew    writes the figures anew: do it with the change that moves them, and say why
# Counts depend on the compiler and on target-cpu, not on the machine's load; another compiler may need a renewal.
set -eu
cd "$(dirname "$0")/.."
TOLERANCE=${TOLERANCE:-3}
figures=bench/instructions.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v valgrind > /dev/null || { echo "valgrind is missing: apt-get install valgrind" >&2; exit 2; }
cargo bench --quiet -p tidemark-series --bench instructions --no-run --message-format=json > "$work/build.json"
program=$(sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p' "$work/build.json" | tail -1)
valgrind --quiet --tool=callgrind --callgrind-out-file="$work/out" "$program"
# It warns about lines without a count, which do not matter here.
callgrind_annotate --inclusive=yes --threshold=100 "$work/out" > "$work/annotated" 2> /dev/null
# A line reads: 1,234 (56.78%)  file:crate::counted_name [object]. The function that calls them all stays out.
awk '/counted_/ {
    count = $1; gsub(",", "", count); count += 0
    if (match($0, /counted_[a-z0-9_]+/)) {
        name = substr($0, RSTART + 8, RLENGTH - 8)
        if (!(name in most) || count > most[name]) most[name] = count
    }
} END { for (name in most) print name, most[name] }' "$work/annotated" | sort > "$work/now"
test -s "$work/now" || { echo "no counted function was seen" >&2; exit 2; }
if [ "${1:-}" = "--renew" ]; then
    { echo "# Instructions by function of node/series/benches/instructions.rs; $(rustc --version)"; cat "$work/now"; } > "$figures"
    cat "$figures"
    exit 0
fi
awk -v tolerance="$TOLERANCE" '
    /^#/ { next }
    FNR == NR { before[$1] = $2; next }
    {
        seen[$1] = 1
        if (!($1 in before)) { printf "%-16s %14d new: renew the figures\n", $1, $2; bad = 1; next }
        change = 100 * ($2 - before[$1]) / before[$1]
        verdict = change > tolerance ? "MORE" : change < -tolerance ? "less: renew the figures" : "same"
        printf "%-16s %14d %+7.2f %% %s\n", $1, $2, change, verdict
        if (change > tolerance) bad = 1
    }
    END {
        for (name in before) if (!(name in seen)) { printf "%-16s is missing\n", name; bad = 1 }
        exit bad
    }' "$figures" "$work/now"
