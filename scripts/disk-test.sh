#!/usr/bin/env bash
# Three nodes, each on a small disk of its own (tmpfs), and a file beside the data that fills it to the last byte. First one
# disk fills up, then all three, then one at once while the node writes. Writers keep going, are refused, go on again; reads
# are answered throughout; in the end every acknowledged point is there once and all replicas are alike.
#   scripts/disk-test.sh
# Needs root, to mount; without it says so and ends with 0. TIDEMARK_DISK_KEEP=1 keeps logs and data.
. "$(dirname "$0")/lib.sh"
load_env

bin=$CARGO_TARGET_DIR/release
port=${TIDEMARK_DISK_PORT:-27000}
disk_mib=512
reserve_mib=64

if [ "$(id -u)" != 0 ]; then
    say "disk-test: skipped: a disk of one's own needs root. With what this user built:"
    note 'make build && sudo -E env "PATH=$PATH" HOME="$HOME" scripts/disk-test.sh'
    exit 0
fi
for program in tidemarkd tidemark tidemark-bench; do
    [ -x "$bin/$program" ] || die "$bin/$program is missing" "make build"
done

work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-disk.XXXXXX")
pids=('' '' '' '')
oracle=
clean() {
    local code=$? i
    trap - EXIT INT TERM
    if [ -n "$oracle" ]; then kill -KILL "$oracle" 2>/dev/null || true; fi
    for i in 1 2 3; do kill -KILL ${pids[i]} 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ $code = 0 ] && [ -z "${TIDEMARK_DISK_KEEP:-}" ]; then
        for i in 1 2 3; do umount "$work/disk$i" 2>/dev/null || true; done
        rm -rf "$work"
    else
        say "logs and data stay in $work; umount $work/disk* when done"
    fi
    exit $code
}
trap clean EXIT
trap 'exit 130' INT TERM
if ! mkdir "$work/disk1" || ! mount -t tmpfs -o size=${disk_mib}m tidemark "$work/disk1" 2>/dev/null; then
    say "disk-test: skipped: this machine lets root mount nothing"
    exit 0
fi
for i in 2 3; do
    mkdir "$work/disk$i"
    mount -t tmpfs -o size=${disk_mib}m tidemark "$work/disk$i"
done

client_port() { echo $((port + 10 * $1)); }
peer() { echo "127.0.0.1:$((port + 10 * $1 + 1))"; }
endpoints=127.0.0.1:$(client_port 1),127.0.0.1:$(client_port 2),127.0.0.1:$(client_port 3)
tidemark() { "$bin/tidemark" --endpoint "$endpoints" "$@"; }

start() {
    "$bin/tidemarkd" --data-dir "$work/disk$1/store" --disk-reserve ${reserve_mib}MiB \
        --listen "127.0.0.1:$(client_port "$1")" --peer-listen "$(peer "$1")" >>"$work/node$1.log" 2>&1 </dev/null &
    pids[$1]=$!
}
runs() { kill -0 "${pids[$1]}" 2>/dev/null; }
free_kib() { df --output=avail -k "$work/disk$1" | tail -n 1; }
# Leaves so many MiB on a disk.
fill() { fallocate -l $(($(free_kib "$1") - $2 * 1024 + $(stat -c %s "$work/disk$1/ballast" 2>/dev/null || echo 0) / 1024))KiB "$work/disk$1/ballast"; }
empty() { rm -f "$work/disk$1/ballast"; }

# Until SECONDS have passed: waits for COMMAND.
until_so() {
    local what=$1 most=$2 began=$SECONDS
    shift 2
    until "$@" >/dev/null 2>&1; do
        if [ $((SECONDS - began)) -ge "$most" ]; then
            tidemark cluster status || true
            die "$what: not after $most s"
        fi
        sleep 0.2
    done
    note "$what: after $((SECONDS - began)) s"
}
# Each replica has come to the index that is asked for now, and has there what the others have.
in_step() { tidemark shard check --all; }
healthy() { tidemark --timeout 3s cluster status --check; }
journaled() { stat -c %s "$work/journal"; }
# Whether the writers' points are being acknowledged.
advancing() {
    local before
    before=$(journaled)
    sleep 2
    [ "$(journaled)" -gt "$before" ]
}
# New devices, enough of them for every shard: their ids are another word each time.
devices() {
    say id,device_type
    for i in {1..40}; do say "probe-$RANDOM-$RANDOM-$i,bench_oracle"; done
}
refused() { ! devices | tidemark --timeout 3s device import - >"$work/probe" 2>&1 && grep -q "almost full" "$work/probe"; }
reads() {
    local i
    for i in 1 2 3; do
        tidemark -e "127.0.0.1:$(client_port "$i")" --timeout 5s query latest --type bench_oracle --limit 1 >"$work/read" 2>&1 || return 1
    done
}
all_run() { runs 1 && runs 2 && runs 3; }

say "three nodes, a disk of $disk_mib MiB each, $reserve_mib MiB of it in reserve; logs in $work"
for i in 1 2 3; do start "$i"; done
until_so "a cluster" 30 tidemark cluster init --shards 4 --peers "$(peer 1),$(peer 2),$(peer 3)"
until_so "healthy" 30 healthy
"$bin/tidemark-bench" oracle --endpoint "$endpoints" --journal "$work/journal" --producers 2 --batch 100 --rate 20 --json >"$work/oracle" 2>&1 &
oracle=$!
until_so "points are acknowledged" 20 advancing

say ""
say "== the disk of node 3 fills up to the last byte; the others go on"
fill 3 $((reserve_mib / 4))
sleep 3
fill 3 0
note "free on node 3: $(free_kib 3) KiB"
until_so "points are acknowledged" 20 advancing
sleep 5
until_so "points are acknowledged still" 20 advancing
reads || die "a node does not answer reads" "$(cat "$work/read")"
runs 3 || die "node 3 ended"
empty 3
until_so "in step again by itself" 60 in_step

say ""
say "== all three disks fill up to the last byte"
for i in 1 2 3; do fill "$i" $((reserve_mib / 4)); done
until_so "writes are refused for want of room" 20 refused
# What was under way has a moment to pass: a disk fills up step by step.
sleep 3
for i in 1 2 3; do fill "$i" 0; done
sleep 5
reads || die "a node does not answer reads" "$(cat "$work/read")"
all_run || die "a node ended"
refused || die "writes are not refused any more"
for i in 1 2 3; do empty "$i"; done
until_so "points are acknowledged again, by themselves" 30 advancing

say ""
say "== the disk of node 2 is full at once, in the middle of its writes"
fill 2 0
sleep 5
until_so "points are acknowledged" 20 advancing
if runs 2; then
    note "node 2 went on"
else
    note "node 2 ended, as it must when its log cannot be written: $(grep -m 1 -o 'raft log can.t be written[^"]*' "$work/node2.log" || tail -n 1 "$work/node2.log")"
fi
empty 2
runs 2 || start 2
until_so "healthy" 60 healthy

kill -INT "$oracle"
wait "$oracle" || die "the writers failed" "$(tail -n 3 "$work/oracle")"
oracle=
say ""
say "== $(tr -d '\n' <"$work/oracle" | grep -oE '"(records|longest_silence_ms|refused_batches)": *[0-9.]+' | paste -sd' ')"
for i in 1 2 3; do
    say "read back through node $i:"
    "$bin/tidemark-bench" oracle --endpoint "127.0.0.1:$(client_port "$i")" --check "$work/journal" || die "node $i lost something"
done
tidemark shard check --all || die "replicas differ"
say "all right: full disks, one and all, slowly and at once; nothing lost, nothing doubled, replicas alike"
