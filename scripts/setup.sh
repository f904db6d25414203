#!/usr/bin/env bash
# Finds or installs what the build needs and writes it to .env.setup, which scripts/run.sh reads. Safe to run again.
#   scripts/setup.sh          everything the build needs
#   scripts/setup.sh --tests  and the test runner
# TIDEMARK_NO_INSTALL=1 only looks; TIDEMARK_NO_NEXTEST=1 stays with `cargo test`.
. "$(dirname "$0")/lib.sh"

rust_min=1.89
done_something=no
found=()
settings=()

did() {
    done_something=yes
    say "setup: $*"
}

may_install() {
    [ -z "${TIDEMARK_NO_INSTALL:-}" ] || die "$1 is missing and TIDEMARK_NO_INSTALL is set"
}

apt_install() {
    may_install "$*"
    did "installing $* with apt-get"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

is_root_on_debian() { [ "$(id -u)" = 0 ] && have apt-get; }

compiler() {
    if ! have cc || ! have c++ || ! have make; then
        is_root_on_debian || die "cc, c++ or make is missing" "on Debian: apt-get install g++ make"
        apt_install g++ make
    fi
    found+=("c++ $(c++ -dumpfullversion -dumpversion)")
}

rust() {
    have cargo || die "cargo is missing" "install Rust $rust_min or newer: https://rustup.rs"
    local version
    version=$(cargo --version | cut -d' ' -f2)
    if [ "$(printf '%s\n%s\n' "$rust_min" "$version" | sort -V | head -1)" != "$rust_min" ]; then
        die "cargo $version is too old, $rust_min or newer is needed" "with rustup: rustup update stable"
    fi
    found+=("cargo $version")
}

# The library, not a program: RocksDB's bindings are generated at build time.
libclang_folder() {
    local folder file
    for folder in ${LIBCLANG_PATH:-} /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib /usr/local/lib \
        "$cache"/tools/libclang/lib/python3*/site-packages/clang/native; do
        for file in "$folder"/libclang.so "$folder"/libclang.so.* "$folder"/libclang-[0-9]*.so*; do
            if [ -e "$file" ]; then
                printf '%s' "$folder"
                return 0
            fi
        done
    done
    return 1
}

# The newest libclang that apt knows, with the headers of the same version.
install_libclang_debian() {
    apt-get update -qq
    local number
    number=$(apt-cache search --names-only '^libclang1-[0-9]+$' | cut -d' ' -f1 | cut -d- -f2 | sort -n | tail -1)
    [ -n "$number" ] || die "apt knows no libclang1-N package"
    apt_install "libclang1-$number" "libclang-common-$number-dev"
}

install_libclang_wheel() {
    may_install libclang
    have python3 || die "libclang is missing, and so is python3 to fetch it" \
        "as root on Debian: apt-get install libclang1-14 libclang-common-14-dev"
    did "no root: fetching the libclang wheel into $cache/tools/libclang (64 MB)"
    python3 -m venv "$cache/tools/libclang" ||
        die "python3 cannot make a virtual environment" "on Debian: apt-get install python3-venv"
    "$cache/tools/libclang/bin/pip" install -q libclang
}

bindings() {
    local folder
    if ! folder=$(libclang_folder); then
        if is_root_on_debian; then install_libclang_debian; else install_libclang_wheel; fi
        folder=$(libclang_folder) || die "libclang was installed and still cannot be found; set LIBCLANG_PATH to its folder"
    fi
    found+=("libclang in $folder")
    case $folder in "$cache"/*) settings+=("LIBCLANG_PATH=$folder") ;; esac

    # clang's own headers, or GCC's in their stead.
    local header gcc_headers
    for header in /usr/lib/llvm-*/lib/clang/*/include/stdbool.h /usr/lib/clang/*/include/stdbool.h; do
        if [ -e "$header" ]; then return; fi
    done
    gcc_headers=$(cc -print-file-name=include)
    [ -e "$gcc_headers/stdbool.h" ] || die "no stdbool.h in $gcc_headers nor beside libclang" \
        "on Debian: apt-get install libclang-common-14-dev"
    found+=("headers of GCC")
    if ! grep -qF -- "-I$gcc_headers " <<<"$(tr '"' ' ' <"$root/.cargo/config.toml")"; then
        settings+=("BINDGEN_EXTRA_CLANG_ARGS=-I$gcc_headers")
    fi
}

rocksdb() {
    if [ -n "${ROCKSDB_LIB_DIR:-}" ]; then
        found+=("RocksDB in $ROCKSDB_LIB_DIR (ROCKSDB_LIB_DIR)")
        return
    fi
    local folder
    folder=$("$root/scripts/rocksdb.sh" --where)
    if [ ! -f "$folder/librocksdb.a" ]; then
        did "no archive of RocksDB in $folder"
        "$root/scripts/rocksdb.sh"
    fi
    found+=("RocksDB in $folder")
    settings+=("ROCKSDB_LIB_DIR=$folder" "ROCKSDB_STATIC=1")
}

nextest() {
    local tools=$cache/tools
    PATH=$PATH:$tools/bin
    if ! have cargo-nextest && [ -z "${TIDEMARK_NO_NEXTEST:-}" ] && [ -z "${TIDEMARK_NO_INSTALL:-}" ]; then
        did "building cargo-nextest into $tools, about six minutes on two cores"
        CARGO_TARGET_DIR=$tools/target cargo install -q cargo-nextest --locked --root "$tools" ||
            say "setup: cargo-nextest did not build; the tests run with cargo test"
        rm -rf "$tools/target"
    fi
    if have cargo-nextest; then found+=("cargo-nextest"); else found+=("cargo test"); fi
}

write_env() {
    if [ -d "$cache/tools/bin" ]; then settings+=("PATH_PREPEND=$cache/tools/bin"); fi
    local text
    text=$(printf '# written by make setup\n'; printf '%s\n' ${settings[@]+"${settings[@]}"})
    if [ ! -f "$env_file" ] || [ "$text" != "$(cat "$env_file")" ]; then
        printf '%s\n' "$text" >"$env_file"
        did "wrote .env.setup:"
        printf '%s\n' "$text" | tail -n +2 | sed 's/^/  /'
    fi
}

# What an earlier set-up wrote and a script handed on is found again, not taken for a choice of whoever calls.
forget_own() {
    local key value
    [ -f "$env_file" ] || return 0
    while IFS='=' read -r key value; do
        case $key in
            '' | '#'* | PATH_PREPEND) ;;
            *) if [ "${!key:-}" = "$value" ]; then unset "$key"; fi ;;
        esac
    done <"$env_file"
}
forget_own

[ "$(uname -s)" = Linux ] || die "the scripts know Linux only" "elsewhere: cargo build, with libclang installed"
mkdir -p "$cache"
compiler
rust
bindings
rocksdb
if [ "${1:-}" = --tests ]; then nextest; fi
write_env

summary=$(printf ', %s' "${found[@]}")
if [ "$done_something" = yes ]; then say "setup: ready: ${summary#, }"; else say "setup: nothing to do: ${summary#, }"; fi
