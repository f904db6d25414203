#!/usr/bin/env bash
# Builds the Debian package: both programs, the unit, a configuration, completions. Needs cargo-deb, which it installs
# once into the cache. The package lies in target/debian of the target folder; its path is the last line.
. "$(dirname "$0")/lib.sh"
load_env
cd "$root"

deb_version=3.8.0
tools=$cache/tools/cargo-deb-$deb_version
if have cargo-deb; then
    cargo_deb=cargo-deb
elif [ -x "$tools/bin/cargo-deb" ]; then
    cargo_deb=$tools/bin/cargo-deb
else
    say "installing cargo-deb $deb_version, once"
    CARGO_TARGET_DIR=$tools/target cargo install cargo-deb --version "$deb_version" --locked --no-default-features --root "$tools"
    rm -rf "$tools/target"
    cargo_deb=$tools/bin/cargo-deb
fi

cargo build --release --locked -p tidemark-node -p tidemark-tools
release=$CARGO_TARGET_DIR/release
mkdir -p "$release/completion"
"$release/tidemark" completion bash >"$release/completion/tidemark.bash"
"$release/tidemark" completion zsh >"$release/completion/_tidemark"
"$release/tidemark" completion fish >"$release/completion/tidemark.fish"
"$release/tidemarkd" --config deploy/tidemarkd.toml --check-config

"$cargo_deb" --no-build -p tidemark-node --multiarch=none "$@"
