# shellcheck shell=bash
# Shared by tools/test, tools/check and tools/fuzz: how a preset is configured; named, timed steps with a table at
# the end. Sourced, not run.
# A step is a function or command; it goes on after a failure, and the caller exits with finish.

passed=0
failed=0
step_names=()
step_results=()
step_seconds=()
failures=''  # The names of what failed, with the end of what each test said.

# step NAME COMMAND...: runs it and notes how it ended; a failed step never stops the script.
step() {
  local name=$1 start=$SECONDS result=ok
  shift
  printf '\n==> %s\n' "$name"
  "$@" || result=FAILED
  step_names+=("$name")
  step_results+=("$result")
  step_seconds+=($((SECONDS - start)))
  printf '==> %s: %s (%d s)\n' "$name" "$result" $((SECONDS - start))
}

# check_step NAME COMMAND...: a step that counts as one test.
check_step() {
  step "$@"
  count_last
}

count_last() {
  if [[ ${step_results[-1]} == ok ]]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# build_and_test PRESET [CTEST OPTION...]: three steps' worth of one preset, every CTest counted on its own.
# What cannot be built counts as one failure.
build_and_test() {
  local preset=$1 report=$PWD/build/$1/ctest.xml
  shift
  step "build $preset" build_preset "$preset"
  if [[ ${step_results[-1]} != ok ]]; then
    failed=$((failed + 1))
    return
  fi
  rm -f "$report"
  step "test $preset" ctest --preset "$preset" --output-junit "$report" "$@"
  local tests not_passed
  tests=$(sed -n 's/^[[:space:]]*tests="\([0-9]*\)".*/\1/p' "$report" 2>/dev/null | head -n 1)
  not_passed=$(sed -n 's/^[[:space:]]*failures="\([0-9]*\)".*/\1/p' "$report" 2>/dev/null | head -n 1)
  if [[ -z $tests || -z $not_passed ]]; then
    failed=$((failed + 1))  # ctest itself did not get as far as a report
    return
  fi
  passed=$((passed + tests - not_passed))
  failed=$((failed + not_passed))
  [[ $not_passed -eq 0 ]] || failures+=$(failures_of "$preset")$'\n'
}

# failures_of PRESET: each test of the last run that failed, and the last lines of its output.
failures_of() {
  local logs=build/$1/Testing/Temporary name
  while IFS=: read -r _ name; do
    printf '\n==> failed (%s): %s\n' "$1" "$name"
    awk -v name="$name" 'index($0, " Testing: " name) { at = 1 } at; index($0, "\"" name "\" end time") { at = 0 }' \
      "$logs/LastTest.log" | tail -n 60 | cut -c 1-400
  done <"$logs/LastTestsFailed.log"
}

# Where nobody sits at a debugger (CI), nothing is written down for one; the tests' own code, which takes longer to
# compile than to run, is not optimised, nor looked at for undefined behaviour, and its headers are precompiled; unit
# tests are built once, with the sanitizers; the simulator and what runs the daemons once, without; several files are
# compiled as one.
configure_preset() {
  local options=()
  if [[ -n ${CI:-} ]]; then
    options=(-DCMAKE_C_FLAGS_RELWITHDEBINFO=-O1 -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1
      -DCMS_TEST_OPTIMISATION=-O0 -DCMS_TEST_PCH=ON)
    case $1 in
      # Of several files as one gcc says that a class of a file has members of that file's own types.
      dev) options+=(-DCMAKE_UNITY_BUILD=ON -DCMAKE_CXX_FLAGS=-Wno-subobject-linkage -DCMS_UNIT_TESTS=OFF) ;;
      asan) options+=(-DCMAKE_UNITY_BUILD=ON -DCMS_TEST_SANITIZE=address -DCMS_SIM=OFF -DCMS_INTEGRATION_TESTS=OFF) ;;
    esac
  fi
  cmake --preset "$1" "${options[@]}"
}

build_preset() {
  configure_preset "$1" && cmake --build --preset "$1"
}

simulate() {
  local program=build/dev/test/sim/cms_sim
  if [[ ! -x $program ]]; then
    echo "no $program: the simulator is part of every build" >&2
    return 1
  fi
  timeout 1200 "$program" --seeds "$1" || return 1
  timeout 1200 "$program" --world claims --seeds "$((20 * $1))"
}

# fuzz SECONDS: every fuzzer that long, each counted on its own. What cannot be built counts as one
# failure.
fuzz() {
  local result=build/asan/fuzz/result output=build/asan/fuzz/output counted_passed counted_failed
  mkdir -p "${output%/*}"
  rm -f "$result"
  step "fuzz, $1 s each" fuzz_into "$output" "$1"
  if ! read -r counted_passed counted_failed 2>/dev/null <"$result"; then
    failed=$((failed + 1))
    return
  fi
  passed=$((passed + counted_passed))
  failed=$((failed + counted_failed))
  [[ $counted_failed -eq 0 ]] || failures+=$(sed -n '/ FAILED; the end of /,$p' "$output" | cut -c 1-9000)$'\n'
}

fuzz_into() {
  tools/fuzz --seconds "$2" 2>&1 | tee "$1"
  return "${PIPESTATUS[0]}"
}

# finish: the table, the total time and the last line; exits 1 when anything failed.
finish() {
  local i result=0
  printf '%s' "$failures"
  printf '\n%-28s %-8s %8s\n' step result seconds
  for i in "${!step_names[@]}"; do
    printf '%-28s %-8s %8d\n' "${step_names[$i]}" "${step_results[$i]}" "${step_seconds[$i]}"
    [[ ${step_results[$i]} == ok ]] || result=1
  done
  printf 'total time: %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [[ $failed -eq 0 ]] || result=1
  exit "$result"
}
