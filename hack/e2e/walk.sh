# Sourced by the walks: runs the functions `step_NAME` of the script, in the order they stand there.
# shellcheck shell=bash
#   SCRIPT            all steps          SCRIPT REGEX...   those whose names match one of them
#   E2E_OUT=DIR       where results.tsv (name, outcome, seconds, detail) and a log a step go (default: ./out)
#   E2E_CORE=1        only steps marked "core", where the host's cgroups, init and security modules matter
#   E2E_SLOWNESS=N    multiplies every time limit (the VM is slow; default 1)
#
# A step is a process of its own under `set -eu`: it passes when it reaches its end. It may say `limit SECONDS` in a comment behind its
# name's line (default 60), and "core" there. `after_step`, defined by the walk, removes what a step left behind.

set -u
E2E_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
E2E_OUT=${E2E_OUT:-$PWD/out}
E2E_SLOWNESS=${E2E_SLOWNESS:-1}
export E2E_OUT E2E_SLOWNESS PTY_SECONDS=$((45 * E2E_SLOWNESS))
PATH=$E2E_DIR:$PATH

# fail TEXT: ends the step.
fail() { echo "failed: $*"; exit 1; }
# skip REASON: ends the step without a verdict.
skip() { echo "skipped: $*"; exit 77; }
# same WANTED FOUND [WHAT]
same() { [ "$1" = "$2" ] || fail "${3:-value}: wanted '$1', found '$2'"; }
# has TEXT WORD: the word (a fixed string) is in the text.
has() { [[ $1 == *"$2"* ]] || fail "wanted '$2' in: $1"; }
lacks() { [[ $1 != *"$2"* ]] || fail "did not want '$2' in: $1"; }
# exits STATUS CMD...: CMD's status is this one (a pattern: 12[67]). Its output, both streams, is in $output.
exits() {
  local wanted=$1 status=0; shift
  output=$("$@" 2>&1) || status=$?
  # shellcheck disable=SC2053 # a pattern
  [[ $status == $wanted ]] || fail "status of '$*': wanted $wanted, found $status: $output"
}
# soon CMD...: CMD comes true within 20 s.
soon() {
  local end=$((SECONDS + 20 * E2E_SLOWNESS))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "never came true: $*"
    sleep 0.1
  done
}

# becomes WANTED CMD...: CMD's output becomes this within 20 s.  shows WORD CMD...: it comes to have the word.
is_output() { local wanted=$1; shift; [ "$("$@" 2>&1)" = "$wanted" ]; }
has_output() { local word=$1; shift; [[ $("$@" 2>&1) == *"$word"* ]]; }
becomes() { soon is_output "$@"; }
shows() { soon has_output "$@"; }

# Keeps a pipe open until the other side has seen what was written: a second, more where things are slow.
a_while() { sleep "$E2E_SLOWNESS"; }

run_steps() {
  local names name pattern limit begin status log outcome detail failed=0 passed=0 skipped=0 again=0 n=0
  mapfile -t names < <(grep -oE '^step_[a-z0-9_]+' "$0" | sed 's/^step_//')
  if [ -n "${E2E_CORE:-}" ]; then
    mapfile -t names < <(grep -oE '^step_[a-z0-9_]+\(\) \{.*# .*core$' "$0" | sed 's/^step_//; s/(.*//')
  fi
  if [ $# -gt 0 ]; then
    pattern=$(IFS='|'; echo "$*")
    mapfile -t names < <(printf '%s\n' "${names[@]}" | grep -E "$pattern")
  fi
  mkdir -p "$E2E_OUT"
  echo "1..${#names[@]}"
  for name in "${names[@]}"; do
    n=$((n + 1)) log=$E2E_OUT/$name.log status=0 detail=''
    limit=$(sed -n "s/^step_$name() {.*# limit \([0-9]*\).*/\1/p" "$0")
    begin=${EPOCHREALTIME/./}
    timeout -k 5 $((${limit:-60} * E2E_SLOWNESS)) bash "$0" --step "$name" >"$log" 2>&1 </dev/null || status=$?
    if [ $status != 0 ] && [ $status != 77 ]; then
      # Engines lose an output or a wake-up now and then. A second try tells that from what never works, and is reported.
      after_step >>"$log" 2>&1 </dev/null
      mv "$log" "$log.first"
      status=0 detail="second try"
      timeout -k 5 $((${limit:-60} * E2E_SLOWNESS)) bash "$0" --step "$name" >"$log" 2>&1 </dev/null || status=$?
    fi
    local took=$(((${EPOCHREALTIME/./} - begin) / 1000))
    case $status in
      0)
        outcome=ok passed=$((passed + 1))
        [ -z "$detail" ] || again=$((again + 1)) ;;
      77) outcome=skip skipped=$((skipped + 1)) detail=$(sed -n 's/^skipped: //p' "$log") ;;
      124 | 137) outcome=fail failed=$((failed + 1)) detail="time limit" ;;
      *) outcome=fail failed=$((failed + 1)) detail=$(sed -n 's/^failed: //p' "$log"); detail=${detail:-$(grep -v '^+' "$log" | tail -n 1) after $(grep '^+' "$log" | tail -n 1)} ;;
    esac
    detail=$(printf %s "$detail" | tr '\t\n' '  ' | cut -c1-300)
    case $outcome in
      ok) echo "ok $n $name${detail:+ # $detail}" ;;
      skip) echo "ok $n $name # SKIP $detail" ;;
      fail) echo "not ok $n $name # $detail" ;;
    esac
    printf '%s\t%s\t%d.%03d\t%s\n' "$name" $outcome $((took / 1000)) $((took % 1000)) "$detail" >>"$E2E_OUT/results.tsv"
    after_step >>"$log" 2>&1 </dev/null
  done
  echo "# $passed passed ($again at the second try), $failed failed, $skipped skipped"
  [ $failed = 0 ]
}

# The last line of a walk: walk "$@"
walk() {
  if [ "${1:-}" = --step ]; then
    set -eu -o pipefail
    exec 9>&2
    BASH_XTRACEFD=9
    set -x
    "step_$2"
  else
    run_steps "$@"
  fi
}
