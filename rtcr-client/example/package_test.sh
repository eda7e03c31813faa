#!/usr/bin/env bash
# Installs this build's library into a prefix of its own and builds the examples against it as a
# stranger would: with find_package, with pkg-config, and with the static library.
# usage: package_test.sh BUILD_DIR EXAMPLE_DIR
set -euo pipefail
build=$1 example=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

for component in tools client client-dev; do
  cmake --install "$build" --prefix "$prefix" --component "$component" >/dev/null
done
libdir=$(dirname "$(find "$prefix" -name librtcr-client.so)")
export PKG_CONFIG_PATH=$libdir/pkgconfig LD_LIBRARY_PATH=$libdir
unset CFLAGS CXXFLAGS LDFLAGS

# Each must start, find its library and say how it is used.
runs() {
  local result=0
  "$1" >/dev/null 2>"$work/usage" || result=$?
  if [[ $result -ne 2 ]] || ! grep -q '^usage:' "$work/usage"; then
    echo "$1 does not run (exit $result): $(cat "$work/usage")" >&2
    exit 1
  fi
  echo "$1 runs"
}

cp -r "$example" "$work/cmake"
cmake -S "$work/cmake" -B "$work/cmake/build" -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
cmake --build "$work/cmake/build" >/dev/null
runs "$work/cmake/build/publish"
runs "$work/cmake/build/restore"

for kind in "" STATIC=1; do
  cp -r "$example" "$work/make$kind"
  make -s -C "$work/make$kind" $kind
  runs "$work/make$kind/publish"
  runs "$work/make$kind/restore"
done

exported=$(nm -D --defined-only "$libdir/librtcr-client.so.1" | awk '$2 != "A" && $3 !~ /@@RTCR_[0-9]+$/')
if [[ -n $exported ]]; then
  printf 'symbols without a version of ours:\n%s\n' "$exported" >&2
  exit 1
fi
env -u LD_LIBRARY_PATH "$prefix/bin/rtcr" --version
mv "$prefix" "$work/elsewhere"  # Nothing may know where it was installed.
PKG_CONFIG_PATH=$(find "$work/elsewhere" -type d -name pkgconfig) pkg-config --cflags rtcr-client | grep -q "$work/elsewhere"
