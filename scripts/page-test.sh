#!/usr/bin/env bash
# Opens the pages of the reference applications in a headless browser, against a demo that runs: what an operator would see
# is there, in order and moving, nothing comes from elsewhere, no script fails. Pictures for people: data/page-*.png.
#   make demo && scripts/page-test.sh
# Writes two readings to two gauges, as their devices would, and an old one to a third that it registers, page-test-silent.
# Chromium comes from apt where it is missing (as root, 20 s).
. "$(dirname "$0")/lib.sh"
load_env
cd "$root"

bin=$CARGO_TARGET_DIR/${TIDEMARK_PROFILE:-release}
export TIDEMARK_ENDPOINT=${TIDEMARK_ENDPOINT:-127.0.0.1:7777}

have python3 || die "python3 is missing" "on Debian: apt-get install python3"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    if [ "$(id -u)" != 0 ] || ! have apt-get || [ -n "${TIDEMARK_NO_INSTALL:-}" ]; then
        die "no chromium, and it cannot be installed here" "as root on Debian: apt-get install chromium"
    fi
    say "page-test: installing chromium with apt-get"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1
    browser=$(command -v chromium)
fi

[ -s data/flood_monitor.url ] || die "the flood monitor does not run" "make demo"
"$bin/examples/device_health" html 3 >data/device_health.html
exec python3 scripts/page-test.py "$browser" "$bin/tidemark" "$(cat data/flood_monitor.url)" data/device_health.html data
