#!/usr/bin/env bash
# Processes on loopback: starts, stops and shows them. One process per node, data, log and pid under ./data.
#   scripts/nodes.sh up demo 1 | up node 3     starts what does not run, waits until each answers
#   scripts/nodes.sh down demo 1 | down node 3
#   scripts/nodes.sh status demo 1 | status node 3
#   scripts/nodes.sh add node 3                one more node, which joins the cluster of the first three
#   scripts/nodes.sh peers 3                   peer addresses, comma between
# Node i listens on 127.0.0.1, client port 7777 + 10 (i - 1), peer port the one above. Nodes that were added are started,
# stopped and shown with the others; `rm -r data/node4` forgets one that was removed from the cluster.
. "$(dirname "$0")/lib.sh"
load_env

action=${1:?action}
daemon=$CARGO_TARGET_DIR/release/tidemarkd

client_port() { echo $((7777 + 10 * ($1 - 1))); }
peer_port() { echo $((7778 + 10 * ($1 - 1))); }

# One process is data/NAME, three are data/NAME1 to data/NAME3.
folder_of() { if [ "$count" = 1 ]; then echo "$root/data/$name"; else echo "$root/data/$name$1"; fi; }

peers() {
    local list= i
    for i in $(seq 1 "$1"); do list=$list,127.0.0.1:$(peer_port "$i"); done
    say "${list#,}"
}

# The first nodes, and those that were added and still have a folder.
numbers() {
    local folder number
    {
        seq 1 "$count"
        [ "$count" = 1 ] || for folder in "$root/data/$name"*/; do
            number=${folder#"$root/data/$name"}
            number=${number%/}
            if [[ $number =~ ^[1-9][0-9]?$ ]]; then say "$number"; fi
        done
    } | sort -nu
}

# The pid of a node that runs, or nothing.
running() {
    local pid
    pid=$(cat "$1/tidemarkd.pid" 2>/dev/null) || return 0
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = tidemarkd ] && grep -qzxF -- "$1/store" "/proc/$pid/cmdline"; then echo "$pid"; fi
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start() {
    local number=$1 folder pid port join=()
    folder=$(folder_of "$number")
    pid=$(running "$folder")
    if [ -n "$pid" ]; then
        note "$(basename "$folder") runs already, process $pid"
        return
    fi
    for port in "$(client_port "$number")" "$(peer_port "$number")"; do
        if port_taken "$port"; then
            die "port $port is taken" "make demo and make cluster use the same ports: make demo-stop, make cluster-stop"
        fi
    done
    mkdir -p "$folder"
    # A node that belongs to a cluster goes on there; only one without data joins.
    if [ "$number" -gt "$count" ]; then join=(--join "$(peers "$count")"); fi
    # Its own session, so that Ctrl-C in this terminal leaves it alone.
    setsid "$daemon" --data-dir "$folder/store" \
        --listen "127.0.0.1:$(client_port "$number")" --peer-listen "127.0.0.1:$(peer_port "$number")" \
        ${join[@]+"${join[@]}"} </dev/null >>"$folder/tidemarkd.log" 2>&1 &
    echo $! >"$folder/tidemarkd.pid"
    note "$(basename "$folder"): process $!, clients 127.0.0.1:$(client_port "$number"), nodes 127.0.0.1:$(peer_port "$number"), data $folder/store, log $folder/tidemarkd.log"
}

wait_until_up() {
    local number=$1 folder deadline=$((SECONDS + 30))
    folder=$(folder_of "$number")
    until port_taken "$(client_port "$number")"; do
        if [ -z "$(running "$folder")" ]; then
            tail -n 20 "$folder/tidemarkd.log" >&2
            die "tidemarkd ended while starting; its log is $folder/tidemarkd.log"
        fi
        [ $SECONDS -lt $deadline ] || die "tidemarkd does not answer after 30 s; its log is $folder/tidemarkd.log"
        sleep 0.1
    done
}

stop() {
    local folder pid deadline=$((SECONDS + 20))
    folder=$(folder_of "$1")
    pid=$(running "$folder")
    if [ -z "$pid" ]; then
        note "$(basename "$folder") does not run"
        return
    fi
    kill -TERM "$pid"
    while [ -n "$(running "$folder")" ]; do
        if [ $SECONDS -ge $deadline ]; then
            note "$(basename "$folder") still runs after 20 s: killing it (nothing acknowledged is lost by that)"
            kill -KILL "$pid"
            deadline=$((SECONDS + 20))
        fi
        sleep 0.1
    done
    rm -f "$folder/tidemarkd.pid"
    note "$(basename "$folder") stopped; its data stays in $folder/store"
}

show() {
    local folder pid
    folder=$(folder_of "$1")
    pid=$(running "$folder")
    if [ -z "$pid" ]; then
        note "$(basename "$folder"): does not run"
    elif "$daemon" health --endpoint "127.0.0.1:$(client_port "$1")" >/dev/null 2>&1; then
        note "$(basename "$folder"): process $pid, serving on 127.0.0.1:$(client_port "$1")"
    else
        note "$(basename "$folder"): process $pid, not serving"
    fi
}

if [ "$action" = peers ]; then
    peers "${2:?count}"
    exit 0
fi

name=${2:?name}
count=${3:?count}
mapfile -t all < <(numbers)
case $action in
    up)
        for i in "${all[@]}"; do start "$i"; done
        for i in "${all[@]}"; do wait_until_up "$i"; done
        ;;
    add)
        [ -n "$(running "$(folder_of 1)")" ] || die "the cluster does not run" "make cluster"
        next=$((${all[-1]} + 1))
        start "$next"
        wait_until_up "$next"
        ;;
    down) for i in "${all[@]}"; do stop "$i"; done ;;
    status) for i in "${all[@]}"; do show "$i"; done ;;
    *) die "unknown action $action" ;;
esac
