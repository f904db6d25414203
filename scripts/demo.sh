#!/usr/bin/env bash
# A fleet in a storm and two applications, on one process (`demo.sh`) or on three (`demo.sh cluster`), and a first answer.
# Expects the binaries to be built: `make demo` and `make cluster` do that first.
. "$(dirname "$0")/lib.sh"
load_env
cd "$root"

started=$SECONDS
kind=${1:-demo}
export TIDEMARK_ENDPOINT=127.0.0.1:7777
bin=$CARGO_TARGET_DIR/release
tidemark() { "$bin/tidemark" "$@"; }
catalogue=bench/catalogue/device-types.toml

# Shows a command as one would type it, then runs it.
show() {
    say ""
    say "\$ tidemark $*"
    tidemark "$@"
}

# A cluster is made once; on the next run it is there already.
init() {
    local answer
    if tidemark cluster status -o json 2>/dev/null | grep -qE '"cluster_id": *"'; then
        note "the cluster is there already: its data is kept"
    elif answer=$(tidemark cluster init "$@" 2>&1); then
        note "made a new cluster"
    else
        die "cluster init failed" "$answer"
    fi
}

# Elections take a moment: an answer is healthy when every shard has a leader.
wait_healthy() {
    local deadline=$((SECONDS + 30))
    until tidemark cluster status --check >/dev/null 2>&1; do
        if [ $SECONDS -ge $deadline ]; then
            tidemark cluster status || true
            die "the cluster is not healthy after 30 s"
        fi
        sleep 0.2
    done
}

say "assumed: this machine only (127.0.0.1), no TLS, no tokens, data kept in ./data, the catalogue's 30 types and 22,042 devices"
if [ "$kind" = cluster ]; then
    scripts/nodes.sh up node 3
    init --peers "$(scripts/nodes.sh peers 3)"
else
    scripts/nodes.sh up demo 1
    init
fi
wait_healthy
# A storm of an earlier run would write into this one.
scripts/apps.sh down

show type apply "$catalogue"
show alert profile apply "$catalogue"
show device import --catalogue "$catalogue"

# It began two hours ago; what is still to come is sent when it is due.
start=$(date -u -d "@$((($(date +%s) - 7200) / 300 * 300))" +%FT%TZ)
say ""
say "\$ tidemark-bench storm --hours 2 --start $start"
"$bin/tidemark-bench" storm --hours 2 --start "$start"

show query latest --type ponding_gauge --tag town=danghu --limit 8
show query agg --type rain_gauge --tag town=danghu --by town --property rain_5min --fn count,sum,max --every 1h --since 3h

show alert list --type ponding_gauge --tag town=danghu --limit 5
show query intervals --type ponding_gauge --tag town=danghu --property depth --at-least 0.4 --since 3h
"$bin/examples/device_health" html 3 >data/device_health.html
say ""
say "what the device office asks: data/device_health.html (client/examples/device_health.rs)"

say ""
say "what a flood-control room keeps open: the gauges of a town by danger (client/examples/flood_monitor.rs)"
"$bin/examples/flood_monitor" list | sed -n 1,8p
scripts/apps.sh up "$start"

stop=make\ demo-stop
if [ "$kind" = cluster ]; then stop=make\ cluster-stop; fi
cat <<TEXT

Ready after $((SECONDS - started)) s. Try next (put the programs on the path first):

  export PATH="$bin:\$PATH"
  tidemark cluster status
  tidemark device list --type ponding_gauge --count-by town
  tidemark query latest --type river_level_gauge
  tidemark query range --device 330482-RG-01-00001 --since 3h -o csv
  tidemark query agg --type rain_gauge --property rain_5min --fn sum --by town --every 1h --since 3h

Stop it with: $stop      Start again from nothing: $stop && rm -r data
TEXT
