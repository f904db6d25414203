#!/usr/bin/env bash
# What the demo leaves running beside its nodes: the storm, which goes on for six hours, and the page of the flood monitor.
#   scripts/apps.sh up START    START is when the storm began, as for `tidemark-bench storm --start`
#   scripts/apps.sh down
# Logs and pids, and the address of the page, are under ./data. The page is on port 7700 of loopback, or on any that is free where
# that one is taken; TIDEMARK_MONITOR_PORT chooses.
. "$(dirname "$0")/lib.sh"
load_env

bin=$CARGO_TARGET_DIR/${TIDEMARK_PROFILE:-release}
data=$root/data
url_file=$data/flood_monitor.url

# The pid of a program that runs, or nothing.
running() {
    local pid
    pid=$(cat "$data/$1.pid" 2>/dev/null) || return 0
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ]; then echo "$pid"; fi
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Its own session, so that Ctrl-C in this terminal leaves it alone.
start() {
    local name=$1
    shift
    setsid "$@" </dev/null >"$data/$name.log" 2>&1 &
    echo $! >"$data/$name.pid"
}

start_storm() {
    start tidemark-bench "$bin/tidemark-bench" storm --start "$1" --hours 8 --live
    note "the storm goes on: process $(cat "$data/tidemark-bench.pid"), log $data/tidemark-bench.log"
}

start_monitor() {
    local port=${TIDEMARK_MONITOR_PORT:-7700} deadline=$((SECONDS + 20))
    if port_taken "$port"; then port=0; fi
    start flood_monitor "$bin/examples/flood_monitor" serve --port "$port"
    until grep -o 'http://[0-9.:]*/' "$data/flood_monitor.log" >"$url_file"; do
        if ! kill -0 "$(cat "$data/flood_monitor.pid")" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            tail -n 20 "$data/flood_monitor.log" >&2
            die "the flood monitor did not start; its log is $data/flood_monitor.log"
        fi
        sleep 0.1
    done
    note "flood monitor: process $(cat "$data/flood_monitor.pid"), page $(cat "$url_file"), log $data/flood_monitor.log"
}

# Neither keeps anything: there is nothing to wait for.
down() {
    local name pid
    for name in flood_monitor tidemark-bench; do
        pid=$(running "$name")
        if [ -n "$pid" ]; then
            kill -TERM "$pid"
            note "$name stopped"
        fi
        rm -f "$data/$name.pid"
    done
    rm -f "$url_file"
}

case ${1:?action} in
    up)
        mkdir -p "$data"
        down
        start_storm "${2:?start}"
        start_monitor
        ;;
    down) down ;;
    *) die "unknown action $1" ;;
esac
