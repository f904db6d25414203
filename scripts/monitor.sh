#!/usr/bin/env bash
# The flood monitor of the demo: starts it in the background, stops it, says where it is. Log, pid and address under ./data.
#   scripts/monitor.sh up | down | status
# Port 7700 of loopback, or any that is free where that one is taken; TIDEMARK_MONITOR_PORT chooses.
. "$(dirname "$0")/lib.sh"
load_env

program=$CARGO_TARGET_DIR/${TIDEMARK_PROFILE:-release}/examples/flood_monitor
pid_file=$root/data/flood_monitor.pid
log=$root/data/flood_monitor.log
url_file=$root/data/flood_monitor.url

running() {
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 0
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = flood_monitor ]; then echo "$pid"; fi
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

up() {
    local pid port=${TIDEMARK_MONITOR_PORT:-7700} deadline=$((SECONDS + 20))
    if [ -z "$(running)" ]; then
        if port_taken "$port"; then port=0; fi
        mkdir -p "$root/data"
        # Its own session, so that Ctrl-C in this terminal leaves it alone.
        setsid "$program" serve --port "$port" </dev/null >"$log" 2>&1 &
        echo $! >"$pid_file"
        until grep -o 'http://[0-9.:]*/' "$log" >"$url_file"; do
            if ! kill -0 "$(cat "$pid_file")" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
                tail -n 20 "$log" >&2
                die "the flood monitor did not start; its log is $log"
            fi
            sleep 0.1
        done
    fi
    pid=$(running)
    note "flood monitor: process $pid, page $(cat "$url_file"), log $log"
}

down() {
    local pid
    pid=$(running)
    if [ -z "$pid" ]; then
        note "flood monitor does not run"
        return
    fi
    # It keeps nothing: there is nothing to wait for.
    kill -TERM "$pid"
    rm -f "$pid_file" "$url_file"
    note "flood monitor stopped"
}

case ${1:?action} in
    up) up ;;
    down) down ;;
    status) if [ -n "$(running)" ]; then up; else note "flood monitor does not run"; fi ;;
    *) die "unknown action $1" ;;
esac
