#!/usr/bin/env bash
# The image and docker-compose.yml as an operator would use them, where an engine runs: three nodes come up healthy and are
# initialised once; points go in; the leader's container is killed and another answers; a node's network is disconnected and
# the others go on while it says UNAVAILABLE; reconnected, all answer alike; a fourth node joins; data outlives `down`.
#   scripts/docker-test.sh                    the image's last stage, on the programs built on this machine (fast)
#   scripts/docker-test.sh --whole            the whole Dockerfile; RocksDB's archive and the crates that this machine has
#                                             already go into the stand-in builder, so that nothing is downloaded
# Needs no registry: bases that are missing are made of Debian packages (as root, debootstrap) under the names that the
# Dockerfile uses. TIDEMARK_DOCKER_KEEP=1 keeps the stand-ins for the next run; everything else always goes.
. "$(dirname "$0")/lib.sh"
load_env
cd "$root"

whole=no
if [ "${1:-}" = --whole ]; then whole=yes; fi
label=org.tidemark.test
project=tidemark-test-$$
port=${TIDEMARK_DOCKER_PORT:-26000}
export COMPOSE_PROJECT_NAME=$project TIDEMARK_IMAGE=tidemark:test-$$
export TIDEMARK_PORT_1=$port TIDEMARK_PORT_2=$((port + 1)) TIDEMARK_PORT_3=$((port + 2)) TIDEMARK_PORT_4=$((port + 3))

have docker || { say "docker-test: skipped: there is no docker on this machine"; exit 0; }
docker version >/dev/null 2>&1 || { say "docker-test: skipped: no engine answers"; exit 0; }
if have docker-compose; then
    compose=(docker-compose)
elif docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
else
    say "docker-test: skipped: neither docker-compose nor docker compose is here"
    exit 0
fi

began=$SECONDS
work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-docker.XXXXXX")
log=$work/log
checks=0
ok() { checks=$((checks + 1)); say "ok  $*"; }

clean() {
    local code=$?
    trap - EXIT INT TERM
    if [ $code != 0 ] && [ -n "$(compose ps -q 2>/dev/null)" ]; then
        compose logs --no-color --tail 30 >"$work/nodes.log" 2>&1 || true
        say "the nodes' last lines: $work/nodes.log"
        tail -n 40 "$log" >&2 || true
    fi
    compose down -v --remove-orphans -t 5 >/dev/null 2>&1 || true
    local kind kinds=(product programs)
    if [ -z "${TIDEMARK_DOCKER_KEEP:-}" ]; then kinds+=(stand-in); fi
    for kind in "${kinds[@]}"; do
        docker images -aq --filter "label=$label=$kind" | sort -u | xargs -r docker rmi -f >/dev/null 2>&1 || true
    done
    if [ $code = 0 ]; then rm -rf "$work"; fi
    exit $code
}
trap clean EXIT
trap 'exit 130' INT TERM
# Every service, the fourth node too.
compose() { "${compose[@]}" --profile grow "$@"; }
# What a person would type; with the fourth node once there is one.
grown=()
up() { "${compose[@]}" ${grown[@]+"${grown[@]}"} up -d --no-build >>"$log" 2>&1 || die "docker-compose up failed"; }

# ---------------------------------------------------------------------------------------------------------- images

base=$(awk '/^FROM /{ last=$2 } END{ print last }' Dockerfile)
builder=$(awk '/^FROM .* AS build$/{ print $2 }' Dockerfile)
present() { docker image inspect "$1" >/dev/null 2>&1; }

# A Debian of its own packages and nothing else, as small as the published one.
make_base() {
    local tree=$work/base suite=${base#*:}
    suite=${suite%-slim}
    [ "$(id -u)" = 0 ] || die "$base is not here and cannot be made without root" "docker pull $base, or" 'make build && sudo -E env "PATH=$PATH" HOME="$HOME" scripts/docker-test.sh'
    if ! have debootstrap; then
        have apt-get || die "debootstrap is missing"
        say "installing debootstrap with apt-get"
        apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
    fi
    mkdir -p "$cache/docker"
    if [ ! -f "$cache/docker/$suite.tar" ]; then
        say "making a base of Debian $suite's packages, about two minutes, once"
        debootstrap --variant=minbase --include=ca-certificates "$suite" "$tree" http://deb.debian.org/debian >>"$log" 2>&1 ||
            die "debootstrap failed" "its log: $log"
        tar -C "$tree" -c --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
            --exclude='./dev/*' --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' . \
            >"$cache/docker/$suite.tar.new"
        mv "$cache/docker/$suite.tar.new" "$cache/docker/$suite.tar"
        rm -rf "$tree"
    fi
    docker import --change "LABEL $label=stand-in" --change 'CMD ["bash"]' "$cache/docker/$suite.tar" "$base" >>"$log"
}

# That base with a C++ compiler, and this machine's Rust, crates and archive of RocksDB.
make_builder() {
    local tree=$work/builder sysroot crates archive
    sysroot=$(rustc --print sysroot)
    crates=${CARGO_HOME:-$HOME/.cargo}/registry
    archive=$(scripts/rocksdb.sh --where)
    mkdir -p "$tree/rust" "$tree/registry" "$tree/rocksdb"
    # Links where the file system allows it: two gigabytes need not be copied twice.
    copy() { cp -al "$@" 2>/dev/null || cp -a "$@"; }
    copy "$sysroot/bin" "$sysroot/lib" "$sysroot/libexec" "$tree/rust/"
    copy "$crates/index" "$crates/cache" "$tree/registry/"
    if [ -f "$archive/librocksdb.a" ]; then copy "$archive" "$tree/rocksdb/"; fi
    cat >"$tree/Dockerfile" <<TEXT
FROM $base
RUN apt-get update && apt-get install -y --no-install-recommends g++ make && rm -rf /var/lib/apt/lists/*
COPY rust /usr/local/rust
COPY registry /usr/local/cargo/registry
COPY rocksdb /cache/tidemark
ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo CARGO_NET_OFFLINE=true
LABEL $label=stand-in
TEXT
    docker build -q -t "$builder" "$tree" >>"$log" 2>&1 || die "the stand-in builder did not build" "its log: $log"
    rm -rf "$tree"
}

stand_ins=()
need() {
    if ! present "$1"; then "$2"; fi
    if [ -n "$(docker images -q --filter "label=$label=stand-in" "$1")" ]; then stand_ins+=("$1"); fi
}

# The last stage alone. What it copies out of the stage before comes from an image that holds nothing else.
build_last_stage() {
    local program programs=tidemark-programs:test-$$
    mkdir -p "$work/programs/out/data"
    for program in tidemarkd tidemark; do
        [ -x "$CARGO_TARGET_DIR/release/$program" ] || die "$CARGO_TARGET_DIR/release/$program is missing" "make build"
        strip --strip-debug -o "$work/programs/out/$program" "$CARGO_TARGET_DIR/release/$program"
    done
    printf 'FROM scratch\nCOPY out /out\nLABEL %s=programs\n' "$label" >"$work/programs/Dockerfile"
    docker build -q -t "$programs" "$work/programs" >>"$log" 2>&1
    awk '/^FROM /{ text="" } { text=text $0 "\n" } END{ printf "%s", text }' Dockerfile |
        sed "s|--from=build|--from=$programs|" >"$work/Dockerfile"
    docker build -t "$TIDEMARK_IMAGE" --label "$label=product" -f "$work/Dockerfile" . >>"$log" 2>&1
}

need "$base" make_base
if [ $whole = yes ]; then need "$builder" make_builder; fi
if [ ${#stand_ins[@]} -gt 0 ]; then
    say "local stand-in bases, not the published images: ${stand_ins[*]}"
else
    say "the bases are images of these names that were on this machine: $base"
fi
build_began=$SECONDS
if [ $whole = yes ]; then
    say "building the whole Dockerfile; the stand-in builder brings this machine's Rust, crates and RocksDB archive"
    docker build -t "$TIDEMARK_IMAGE" --label "$label=product" . >>"$log" 2>&1 || die "the image did not build" "its log: $log"
else
    say "the Dockerfile's last stage on programs compiled on this machine, not in the builder (--whole compiles there)"
    build_last_stage || die "the image did not build" "its log: $log"
fi
size=$(docker image inspect -f '{{.Size}}' "$TIDEMARK_IMAGE")
ok "image built in $((SECONDS - build_began)) s, $((size / 1000000)) MB"

# ---------------------------------------------------------------------------------------------------------- the scenario

container() { compose ps -q "$1"; }
# tidemark in a node's container: in NODE ARGUMENTS…
in_node() {
    local node=$1
    shift
    timeout 100 docker exec -i "$(container "$node")" tidemark "$@"
}

# Waits until a command succeeds: within SECONDS WHAT COMMAND…
within() {
    local limit=$1 what=$2 start=$SECONDS
    shift 2
    until "$@" >>"$log" 2>&1; do
        [ $((SECONDS - start)) -lt "$limit" ] || die "not within $limit s: $what"
        sleep 0.3
    done
    waited=$((SECONDS - start))
}

is_healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }
is_done() { [ "$(docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' "$(container init)")" = "exited 0" ]; }
cluster_id() { in_node "$1" cluster status -o json | grep -oE '"cluster_id": *"[^"]+"' | head -1; }

wait_all() {
    local node
    for node in "$@"; do within 90 "$node is healthy" is_healthy "$node"; done
    within 60 "the init service is done" is_done
    within 60 "the cluster is healthy" in_node "$1" --timeout 5s cluster status --check
}

device_csv=$work/devices.csv
points_csv=$work/points.csv
{
    echo id,device_type,lat,lon,town
    for i in $(seq 1 40); do echo "dt-$i,ponding_gauge,30.7,121.0,danghu"; done
} >"$device_csv"
{
    echo device,timestamp,depth,battery_pct
    start=$(($(date +%s) / 60 * 60 - 7200))
    for i in $(seq 1 40); do
        for m in $(seq 0 5 115); do
            echo "dt-$i,$(date -u -d "@$((start + m * 60))" +%Y-%m-%dT%H:%M:%SZ),0.$((10 + (i * 7 + m) % 90)),$((60 + i % 40))"
        done
    done
} >"$points_csv"
from=$(date -u -d "@$((start - 60))" +%Y-%m-%dT%H:%M:%SZ)
to=$(date -u -d "@$((start + 7200))" +%Y-%m-%dT%H:%M:%SZ)

# All raw records and an aggregate, from one node: what must be the same everywhere and later.
answers() {
    in_node "$1" --timeout 20s query range --type ponding_gauge --from "$from" --to "$to" -o csv &&
        in_node "$1" --timeout 20s query agg --type ponding_gauge --property depth --fn count,avg,min,max --by town --every 1h \
            --from "$from" --to "$to" -o csv
}
same() {
    answers "$1" >"$work/answers.$1" 2>>"$log" && cmp -s "$work/answers" "$work/answers.$1"
}
# One more point through a node: what a client does that tries again.
write_point() {
    printf 'device,timestamp,depth\ndt-1,%s,0.5\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" |
        in_node "$1" --timeout "${2:-20s}" ingest - --type ponding_gauge --time-format rfc3339 --rejects "/tmp/rejected.$RANDOM"
}
# The container of the node that leads the most shards.
leader() {
    local status id
    status=$(in_node node1 cluster status -o json | tr -d ' \n')
    id=$(grep -oE '"leader_node":[0-9]+' <<<"$status" | cut -d: -f2 | sort -n | uniq -c | sort -rn | awk 'NR == 1 { print $2 }')
    grep -oE "\"id\":$id,[^}]*\"client_address\":\"[a-z0-9]+" <<<"$status" | head -1 | grep -oE '[a-z0-9]+$'
}
others() { for node in node1 node2 node3; do [ "$node" = "$1" ] || say "$node"; done; }

compose config -q || die "docker-compose.yml is not valid"
up
wait_all node1 node2 node3
id=$(cluster_id node1)
[ -n "$id" ] || die "no cluster id"
ok "up: three nodes healthy, initialised"
for node in node1 node2 node3; do
    [ "$(docker exec "$(container "$node")" id -u)" = 65532 ] || die "$node runs as root"
    mount=$(docker inspect -f '{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}};{{end}}' "$(container "$node")")
    [ "$mount" = "volume ${project}_$node /var/lib/tidemark;" ] || die "$node keeps its data elsewhere: $mount"
done
ok "non-root, each node's data on a volume of its own"
(exec 3<>"/dev/tcp/127.0.0.1/$TIDEMARK_PORT_2") 2>/dev/null || die "the published port does not answer"
ok "published port 127.0.0.1:$TIDEMARK_PORT_2 answers"

up
wait_all node1 node2 node3
[ "$(cluster_id node2)" = "$id" ] || die "a second up made another cluster"
docker logs "$(container init)" 2>&1 | grep -q 'there already' || die "the init service did not find the cluster"
ok "a second up finds the cluster and makes no other"

in_node node1 type apply /usr/share/tidemark/device-types.toml >>"$log"
in_node node1 device import - <"$device_csv" >>"$log"
in_node node1 ingest - --type ponding_gauge --time-format rfc3339 --rejects "/tmp/rejected.$RANDOM" <"$points_csv" >>"$log"
answers node1 >"$work/answers"
rows=$(grep -c '^dt-' "$work/answers")
[ "$rows" = 960 ] || die "960 records went in, $rows come out"
for node in node2 node3; do same "$node" || die "$node answers otherwise"; done
ok "types, devices and 960 records in; three nodes give the same answers"

victim=$(leader)
mapfile -t rest < <(others "$victim")
docker kill -s KILL "$(container "$victim")" >>"$log"
within 30 "another node answers after the leader's death" same "${rest[0]}"
answered=$waited
within 30 "the other nodes take a write" write_point "${rest[1]}"
ok "leader $victim killed: ${rest[0]} gave the same answers after $answered s, a write was taken after $waited s more"
up
wait_all node1 node2 node3
within 30 "$victim answers again" same "$victim"
ok "$victim started again: healthy, same answers"

victim=$(leader)
mapfile -t rest < <(others "$victim")
network=$(docker inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}' "$(container "$victim")")
docker network disconnect "$network" "$(container "$victim")"
within 30 "the majority answers" same "${rest[0]}"
answered=$waited
within 30 "the majority takes a write" write_point "${rest[1]}"
ok "$victim disconnected: the majority gave the same answers after $answered s, a write was taken after $waited s more"
# Never done, and the node itself says so. The command also tries the nodes that it cannot see, and may report those in the
# place of this one, although its own node is on the list many times: then it is asked again.
self=$(printf '127.0.0.1:7777,%.0s' $(seq 1 30))
refused() {
    local what=$1 code try
    shift
    for try in $(seq 1 8); do
        code=0
        "$@" >"$work/refused" 2>&1 || code=$?
        cat "$work/refused" >>"$log"
        case $code in
            0) die "the cut-off node did what it cannot do: $what" "$(cat "$work/refused")" ;;
            3) if grep -qE 'why: .*(has no leader|no replica of shard|gave no answer in time|shard [0-9]+: no answer in|majority|quorum)' "$work/refused"; then break; fi ;;
            124) ;;
            *) die "the cut-off node did not answer UNAVAILABLE to $what (exit code $code)" "$(cat "$work/refused")" ;;
        esac
        [ "$try" -lt 8 ] || die "the cut-off node did not answer $what itself" "$(cat "$work/refused")"
    done
    ok "the cut-off node refuses $what: $(grep -m1 why: "$work/refused" | sed 's/^ *why: //')"
}
register() { printf 'id,device_type\ndt-new,ponding_gauge\n' | in_node "$victim" -e "${self%,}" --timeout 25s device import -; }
refused "a linearizable read" in_node "$victim" -e "${self%,}" --timeout 6s query latest --type ponding_gauge
refused "a new device" register
in_node "$victim" --timeout 6s query latest --type ponding_gauge --consistency any >"$work/any" 2>&1 ||
    die "no read of whatever is there" "$(tail -n 3 "$work/any")"
ok "and answers --consistency any: $(grep -m1 behind "$work/any" || say "without saying how old")"
docker network connect --alias "$victim" "$network" "$(container "$victim")"
for node in node1 node2 node3; do within 60 "$node answers after the network is back" same "$node"; done
within 60 "the cluster is healthy" in_node node1 --timeout 5s cluster status --check
ok "reconnected: three nodes give the same answers, healthy after $waited s"

grown=(--profile grow)
compose up -d --no-build node4 >>"$log" 2>&1 || die "node4 did not start"
within 90 "node4 is healthy" is_healthy node4
joined() { in_node node1 cluster status -o json | tr -d ' \n' | grep -q '"client_address":"node4:7777"'; }
within 60 "node4 has joined" joined
within 60 "the cluster is healthy" in_node node1 --timeout 5s cluster status --check
within 30 "node4 answers" same node4
ok "node4 joined by itself and gives the same answers"

compose down -t 30 >>"$log" 2>&1
[ "$(docker volume ls -q --filter "name=${project}_node" | wc -l)" -ge 3 ] || die "down took the volumes with it"
up
wait_all node1 node2 node3
[ "$(cluster_id node1)" = "$id" ] || die "after down and up it is another cluster"
for node in node1 node2 node3; do within 30 "$node answers after down and up" same "$node"; done
ok "down and up again: the same cluster, the same answers"
say "all right: $checks checks in $((SECONDS - began)) s; containers, networks, volumes and test images are removed"
