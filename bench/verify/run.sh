#!/bin/sh
# Puts every recorded file of a folder into a running cluster and checks what comes back against the file itself.
#
#   bench/verify/run.sh FOLDER [HOST:PORT]
#
# TIDEMARK    the tidemark command          (default: tidemark)
# WORK        progress files and rejects    (default: a new temporary folder)
# ONLY        check, do not ingest first    (set it to verify)
# Exit code: 0 every file equal, 1 differences, 2 something could not be done. Run again after an interruption with the
# same WORK: the import goes on where it stopped.
set -u

usage() {
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -ge 1 ] && [ -d "$1" ] || usage
folder=$1
export TIDEMARK_ENDPOINT="${2:-${TIDEMARK_ENDPOINT:-127.0.0.1:7777}}"
tidemark=${TIDEMARK:-tidemark}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
types=$here/../datasets
work=${WORK:-$(mktemp -d)}
mkdir -p "$work" || exit 2
command -v "$tidemark" >/dev/null || { echo "no $tidemark command; set TIDEMARK" >&2; exit 2; }
echo "endpoint $TIDEMARK_ENDPOINT, progress and rejects in $work" >&2

worst=0
files=0
for file in "$folder"/*.csv "$folder"/*.csv.zst; do
    [ -e "$file" ] || continue
    name=$(basename "$file" .zst)
    name=${name%.csv}
    if [ ! -e "$types/$name.toml" ]; then
        echo "$name: no $types/$name.toml, left out" >&2
        continue
    fi
    files=$((files + 1))
    if [ "${ONLY:-}" != verify ]; then
        "$tidemark" type apply "$types/$name.toml" >"$work/$name.apply" || exit 2
        "$tidemark" ingest "$file" --type "$name" --register \
            --state "$work/$name.progress" --rejects "$work/$name.rejected.csv" || exit 2
    fi
    python3 "$here/verify.py" "$file" --types "$types/$name.toml" --tidemark "$tidemark" \
        --endpoint "$TIDEMARK_ENDPOINT"
    code=$?
    [ "$code" -gt "$worst" ] && worst=$code
done
[ "$files" -gt 0 ] || { echo "$folder has no recorded file that bench/datasets knows" >&2; exit 2; }
[ "$worst" -eq 0 ] && echo "$files files, all equal"
exit "$worst"
