#!/usr/bin/env bash
# Builds RocksDB's C++ (343 files, about 34 CPU-minutes) once per user and keeps the archive in the cache, so that every
# profile, clone and `cargo clean` shares it. Prints the folder of librocksdb.a as the last line of its output.
#   scripts/rocksdb.sh          build if missing
#   scripts/rocksdb.sh --where  only say where it would be
# The folder's name holds everything the archive depends on: version, features, flags, compiler.
. "$(dirname "$0")/lib.sh"

manifest=$root/Cargo.toml
lock=$root/Cargo.lock

dependency=$(grep -E '^rocksdb = ' "$manifest") || die "no line 'rocksdb = …' in $manifest"
version=$(awk '/^name = "librocksdb-sys"$/ { getline; gsub(/version = |"/, ""); print; exit }' "$lock")
[ -n "$version" ] || die "librocksdb-sys is not in $lock"

# The same flags as .cargo/config.toml gives the workspace.
arch=$(uname -m)
flags=
if [ "$arch" = x86_64 ]; then flags=-Ctarget-cpu=x86-64-v2; fi

compiler=$(${CXX:-c++} -dumpfullversion -dumpversion | cut -d. -f1)
hash=$(printf '%s\n' "$dependency" "$flags" "$arch" "$compiler" | sha256sum | cut -c1-10)
folder=$cache/rocksdb-$version-$hash

if [ "${1:-}" = --where ]; then
    say "$folder"
    exit 0
fi

# Two set-ups at once: the second waits and then finds the archive.
mkdir -p "$cache"
if have flock; then
    exec 9>"$cache/rocksdb.lock"
    flock 9
fi
if [ -f "$folder/librocksdb.a" ]; then
    say "$folder"
    exit 0
fi

work=$cache/rocksdb-build
rm -rf "$work"
mkdir -p "$work/src"
cp "$lock" "$work/Cargo.lock"
: >"$work/src/lib.rs"
{
    printf '[package]\nname = "rocksdb-archive"\nversion = "0.0.0"\nedition = "2024"\npublish = false\n\n'
    printf '[dependencies]\n%s\n\n[profile.release]\ndebug = false\n\n[workspace]\n' "$dependency"
} >"$work/Cargo.toml"

say "building RocksDB's C++ once, $(nproc) at a time; about 18 minutes on two cores, log in $work/log"
# A process group of its own: a build script that cargo leaves behind would go on compiling.
set -m
(
    cd "$work"
    unset ROCKSDB_LIB_DIR ROCKSDB_STATIC CARGO_ENCODED_RUSTFLAGS
    export RUSTFLAGS=$flags CARGO_TARGET_DIR=$work/target
    exec cargo build --release
) >"$work/log" 2>&1 &
build=$!
set +m
trap 'kill -- "-$build" 2>/dev/null; exit 130' INT TERM

started=$SECONDS
said=$SECONDS
while kill -0 "$build" 2>/dev/null; do
    if [ $((SECONDS - said)) -ge 60 ]; then
        said=$SECONDS
        files=$(find "$work/target" -path '*librocksdb-sys*' -name '*.o' 2>/dev/null | wc -l)
        note "$(((SECONDS - started) / 60)) min, $files of about 343 files"
    fi
    sleep 1
done
if ! wait "$build"; then
    tail -n 30 "$work/log" >&2
    die "RocksDB did not build; the whole log is in $work/log"
fi

archive=$(find "$work/target/release/build" -path '*librocksdb-sys*/out/librocksdb.a' | head -1)
[ -n "$archive" ] || die "the build left no librocksdb.a under $work/target"
mkdir -p "$folder"
mv "$archive" "$folder/librocksdb.a.new"
mv "$folder/librocksdb.a.new" "$folder/librocksdb.a"
rm -rf "$work"
say "built in $(((SECONDS - started) / 60)) min"
say "$folder"
