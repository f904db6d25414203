#!/usr/bin/env bash
# Installs the stores that `tidemark-bench run --compare` plays against, from Debian's own packages, and leaves them stopped:
# the bench starts its own processes with data of their own. Needs root.
set -euo pipefail
packages=(victoria-metrics influxdb postgresql)

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
    apt-get update
    # No service starts with its package.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
fi
dpkg-query -W -f '${Package} ${Version}\n' "${packages[@]}"
