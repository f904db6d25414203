#!/usr/bin/env bash
# Three nodes on hosts of their own (network namespaces on a bridge), a client on a fourth, and packets that are really
# dropped. For each partition: writers follow the majority, the cut-off node is asked itself, everything heals alone, and
# every node gives every acknowledged value back once. Exit code 0 where all of that holds.
#   scripts/partition-test.sh                 all scenarios
#   scripts/partition-test.sh leader partial  some of them
#   scripts/partition-test.sh rule cut 1 2 …  (used by itself, inside of the run)
# Needs root, for the namespaces; without it says so and ends with 0. TIDEMARK_PARTITION_KEEP=1 keeps logs and data.
. "$(dirname "$0")/lib.sh"
load_env

bin=$CARGO_TARGET_DIR/release
net=10.77.0
# Longer than the node's own limit for a request (10 s), so that even a write that waits for it is answered within the cut.
cut_s=${TIDEMARK_PARTITION_CUT_S:-15}
after_s=${TIDEMARK_PARTITION_AFTER_S:-12}
# Hosts of this run: PREFIX-1 to PREFIX-3, PREFIX-client, PREFIX-switch.
prefix=${TIDEMARK_PARTITION_PREFIX:-tidemark$$}

on() {
    local host=$prefix-$1
    shift
    ip netns exec "$host" "$@"
}

# Packets from one node no longer arrive at another; the way back is not touched.
block() { on "$2" nft add rule inet partition arriving ip saddr "$net.$1" drop; }
heal() { for i in 1 2 3; do on "$i" nft flush chain inet partition arriving; done; }

# cut A B: nothing between A and B. deaf A: nothing reaches A. mute A: nothing that A sends arrives. alone A: both.
# The client keeps seeing all of them.
rule() {
    local what=$1 other
    shift
    case $what in
        cut) block "$1" "$2" && block "$2" "$1" ;;
        deaf) for other in 1 2 3; do [ "$other" = "$1" ] || block "$other" "$1"; done ;;
        mute) for other in 1 2 3; do [ "$other" = "$1" ] || block "$1" "$other"; done ;;
        alone) rule deaf "$1" && rule mute "$1" ;;
        heal) heal ;;
        *) die "unknown rule $what" ;;
    esac
}

if [ "${1:-}" = rule ]; then
    shift
    rule "$@"
    exit 0
fi

if [ "$(id -u)" != 0 ]; then
    say "partition-test: skipped: network namespaces need root. With what this user built:"
    note 'make build && sudo -E env "PATH=$PATH" HOME="$HOME" scripts/partition-test.sh'
    exit 0
fi
for package in iproute2:ip nftables:nft; do
    if ! have "${package#*:}"; then
        have apt-get || die "${package#*:} is missing" "install ${package%:*}"
        say "partition-test: installing ${package%:*} with apt-get"
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${package%:*}" >/dev/null
    fi
done
for program in tidemarkd tidemark tidemark-bench; do
    [ -x "$bin/$program" ] || die "$bin/$program is missing" "make build"
done
if ! ip netns add "$prefix-switch" 2>/dev/null; then
    say "partition-test: skipped: this machine gives root no network namespaces"
    exit 0
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-partition.XXXXXX")
pids=()
oracle=
clean() {
    local code=$? pid host deadline=$((SECONDS + 15))
    trap - EXIT INT TERM
    if [ -n "$oracle" ]; then kill -KILL "$oracle" 2>/dev/null || true; fi
    for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in ${pids[@]+"${pids[@]}"}; do
        while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
    done
    for host in 1 2 3 client switch; do ip netns del "$prefix-$host" 2>/dev/null || true; done
    if [ $code = 0 ] && [ -z "${TIDEMARK_PARTITION_KEEP:-}" ]; then
        rm -rf "$work"
    else
        say "logs and data stay in $work"
    fi
    exit $code
}
trap clean EXIT
trap 'exit 130' INT TERM

host() {
    local name=$1 address=$2
    if [ "$name" != switch ]; then ip netns add "$prefix-$name"; fi
    ip link add "v$name" netns "$prefix-$name" type veth peer name "p$name" netns "$prefix-switch"
    on switch ip link set "p$name" master br0 up
    on "$name" ip addr add "$address/24" dev "v$name"
    on "$name" ip link set "v$name" up
    on "$name" ip link set lo up
    on "$name" nft 'table inet partition { chain arriving { type filter hook input priority 0; policy accept; }; }'
}

start() {
    # Not through a function: the process that is noted must be the node itself.
    ip netns exec "$prefix-$1" "$bin/tidemarkd" --insecure --data-dir "$work/node$1" --zone "host$1" \
        --listen "$net.$1:7777" --peer-listen "$net.$1:7778" >>"$work/node$1.log" 2>&1 </dev/null &
    pids+=($!)
}

tidemark() { on client "$bin/tidemark" --endpoint "$endpoints" "$@"; }

wait_healthy() {
    local began=$SECONDS
    until tidemark --timeout 3s cluster status --check >/dev/null 2>&1; do
        if [ $((SECONDS - began)) -ge "$1" ]; then
            tidemark cluster status || true
            die "not healthy after $1 s"
        fi
        sleep 0.2
    done
}

# How many shards each node leads, the fewest first: "COUNT NODE" a line.
leaders() {
    local status node
    status=$(tidemark cluster status -o json | tr -d ' \n')
    for node in 1 2 3; do
        say "$(grep -oE "\"leader_node\":$node\\b" <<<"$status" | wc -l) $node"
    done | sort -n
}

# What one scenario found, and whether it was right. NAME RULE EXPECT VICTIM…
failed=()
scenario() {
    local name=$1 cut=$2 expect=$3 victims='' node self
    shift 3
    for node in "$@"; do victims=$victims,$net.$node:7777; done
    self="TIDEMARK_PARTITION_PREFIX=$prefix $root/scripts/partition-test.sh rule"
    say ""
    say "== $name: $cut; asked directly: node $*; leaders (count node): $(leaders | paste -sd, | sed 's/,/, /g')"
    if ! on client "$bin/tidemark-bench" partition --endpoint "$endpoints" --victim "${victims#,}" --expect "$expect" --deadline-ms 12000 \
        --cut "$self $cut" --heal "$self heal" --cut-s "$cut_s" --after-s "$after_s"; then
        failed+=("$name")
        say "   WRONG"
        heal
    fi
    wait_healthy 30
}

on switch ip link add br0 type bridge
on switch ip link set br0 up
for i in 1 2 3; do host "$i" "$net.$i"; done
host client "$net.100"
endpoints=$net.1:7777,$net.2:7777,$net.3:7777

say "three nodes at $net.1 to $net.3, the client at $net.100; each cut lasts $cut_s s; logs in $work"
for i in 1 2 3; do start "$i"; done
# Again until all three listen; one that was made although the answer got lost is made.
make_cluster() {
    on client "$bin/tidemark" -e "$net.1:7777" cluster init --shards 4 \
        --peers "$net.1:7778,$net.2:7778,$net.3:7778" >"$work/init" 2>&1 || grep -qi 'already' "$work/init"
}
deadline=$((SECONDS + 30))
until make_cluster; do
    if [ $SECONDS -ge $deadline ]; then
        cat "$work/init" >&2
        die "no cluster after 30 s"
    fi
    sleep 0.3
done
wait_healthy 30

# Beside all scenarios: an oracle that remembers every acknowledged point.
ip netns exec "$prefix-client" "$bin/tidemark-bench" oracle --endpoint "$endpoints" --journal "$work/journal" --producers 2 --batch 50 --rate 10 \
    --json >"$work/oracle" 2>&1 &
oracle=$!

wanted=("$@")
if [ ${#wanted[@]} = 0 ]; then wanted=(follower leader mute deaf partial); fi
for name in "${wanted[@]}"; do
    mapfile -t ranks < <(leaders)
    fewest=${ranks[0]#* }
    middle=${ranks[1]#* }
    most=${ranks[2]#* }
    case $name in
        follower) scenario "the node that leads the fewest, cut off" "alone $fewest" unavailable "$fewest" ;;
        leader) scenario "the node that leads the most, cut off" "alone $most" unavailable "$most" ;;
        mute) scenario "nothing that the leader of the most sends arrives" "mute $most" unavailable "$most" ;;
        deaf) scenario "the leader of the most hears nothing" "deaf $most" unavailable "$most" ;;
        partial) scenario "two nodes cannot see each other, the third sees both" "cut $most $middle" either "$most" "$middle" ;;
        *) die "unknown scenario $name" "follower, leader, mute, deaf or partial" ;;
    esac
done

kill -INT "$oracle"
wait "$oracle" || failed+=("the oracle's writers")
oracle=
say ""
say "== beside all of it: $(tr -d '\n' <"$work/oracle" | grep -oE '"(records|longest_silence_ms|refused_batches)": *[0-9.]+' | paste -sd' ')"
for i in 1 2 3; do
    say "read back through node $i:"
    on client "$bin/tidemark-bench" oracle --endpoint "$net.$i:7777" --check "$work/journal" || failed+=("the oracle at node $i")
done
tidemark cluster status --check >/dev/null || failed+=("health in the end")
if [ ${#failed[@]} -gt 0 ]; then
    say "WRONG: $(printf '%s; ' "${failed[@]}")"
    exit 1
fi
say "all right: ${#wanted[@]} partitions, nothing stale, nothing lost, nothing doubled, healed alone"
