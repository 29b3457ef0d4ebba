# Sourced: what runc's suite (bats) has found, as bats and bats-vm keep and compare it, and what keeps one test from stopping it.
# shellcheck shell=bash
# A file of results (FILE.tsv) has a line a test: file, verdict (ok, skip, fail, time), name, remark.
exceptions=$HACK/conformance/exceptions.tsv

# verdicts FILE <TAP: a line a test: file, verdict, name, remark
verdicts() {
  awk -v file="$1" -v OFS='\t' '
    /^1\.\./ { planned = substr($0, 4) }
    /^(not )?ok [0-9]+ / {
      seen++
      verdict = $1 == "ok" ? "ok" : "fail"; name = $0; remark = ""
      sub(/^(not )?ok [0-9]+ /, "", name)
      if (match(name, / # (skip|timeout)/)) { remark = substr(name, RSTART + 3); name = substr(name, 1, RSTART - 1) }
      if (remark ~ /^skip/) verdict = "skip"
      if (remark ~ /^timeout/) verdict = "time"
      print file, verdict, name, remark
    }
    END { if (seen < planned || planned == "") print file, "time", "(" planned - seen " tests did not come to an end)", "" }'
}

# unpassed FILE [NAMES]: a regex of the tests of the results FILE that failed and that exceptions.tsv does not name, nor a line of the file
# NAMES; nothing if there is none. (A line in brackets counts what did not come to an end: it is no test.)
unpassed() {
  awk -F'\t' -v exceptions="$exceptions" -v names="${2:-/dev/null}" '
    BEGIN {
      while ((getline line < exceptions) > 0) { split(line, f, "\t"); excepted[f[1], f[2]] = 1 }
      while ((getline line < names) > 0) known[line] = 1
    }
    ($2 == "fail" || $2 == "time") && $3 !~ /^\(/ && !(($1, $3) in excepted) && !($3 in known) {
      gsub(/[][().*+?{}|^$\\\/]/, "\\\\&", $3); printf "%s^%s$", n++ ? "|" : "", $3
    }' "$1"
}

# amend FILE AGAIN: what failed on a machine that was too busy for the suite's patience is told from what fails: in the results FILE it has
# passed if it has in those of the second try.
amend() {
  awk -F'\t' -v OFS='\t' 'NR == FNR { if ($2 == "ok") passes[$3] = 1; next }
    ($2 == "fail" || $2 == "time") && $3 in passes { $2 = "ok"; $4 = "at the second try" } { print }' \
    "$2" "$1" >"$1.amended" && mv "$1.amended" "$1"
}

# table DIR NAME...: tests that not every runtime passes, and sums
table() {
  local dir=$1; shift
  (cd "$dir" && for name; do
    for f in "${files[@]}"; do [ ! -e "$name/$f.tsv" ] || sed "s|^|$name\t|" "$name/$f.tsv"; done
  done) | awk -F'\t' -v names="$*" -v exceptions="$exceptions" '
    BEGIN {
      n = split(names, name, " ")
      while ((getline line < exceptions) > 0) { split(line, f, "\t"); if (line !~ /^#/) reason[f[1] ": " f[2]] = f[3] }
    }
    { test = $2 ": " $4; if (!(test in seen)) order[++count] = test; seen[test] = 1; got[test, $1] = $3; why[test, $1] = $5; sum[$1, $3]++ }
    END {
      for (i = 1; i <= count; i++) {
        test = order[i]; same = 1; words = ""; other = ""
        for (j = 1; j <= n; j++) {
          word = got[test, name[j]]; if (word == "") word = "-"
          if (word != "ok" && word != "-") same = 0
          if (j > 1 && word == "ok") other = 1
          words = words sprintf("%-6s", word)
        }
        mine = got[test, name[1]]
        if (same) { if (test in reason) print words test "   PASSES here, and has an exception"; continue }
        mark = ""
        if (mine != "ok" && mine != "skip" && (other || test in reason)) { if (test in reason) mark = "   exception: " reason[test]; else { mark = "   LOST"; lost++ } }
        else if (why[test, name[1]] != "") mark = "   (" why[test, name[1]] ")"
        print words test mark
      }
      for (j = 1; j <= n; j++)
        printf "%s: %d passed, %d skipped, %d failed, %d out of time\n", name[j], sum[name[j], "ok"], sum[name[j], "skip"], sum[name[j], "fail"], sum[name[j], "time"]
      printf "%d passed, %d failed, %d skipped: what %s fails and another passes counts as failed\n", sum[name[1], "ok"], lost,
        count - sum[name[1], "ok"] - lost, name[1]
      exit lost > 0
    }'
}

# watch TAP BOUND FIRST: runs beside bats, whose output is TAP. A test that says nothing for BOUND seconds loses its programs (of those
# with a pid above FIRST; what there was is in FILE.quiet then), and so fails; if that does not help, so does the file. (bats has a bound
# of its own, BATS_TEST_TIMEOUT, which in 1.12 loses the output of every test that fails.)
watch() {
  local said='' now quiet=0 tries=0 p pid
  while sleep 2; do
    now=$(stat -c %s "$1" 2>/dev/null)
    if [ "$now" != "$said" ]; then said=$now quiet=0 tries=0; continue; fi
    quiet=$((quiet + 2))
    [ $quiet -gt "$2" ] || continue
    quiet=0 tries=$((tries + 1))
    ps -eo pid,ppid,stat,wchan:20,args >"${1%.tap}.quiet"
    for p in /proc/[0-9]*; do
      pid=${p#/proc/}
      [ "$pid" -gt "$3" ] && [ "$pid" != $BASHPID ] || continue
      [ $tries -lt 3 ] || { kill -9 "$pid"; continue; }
      case $(readlink "$p/exe") in
        */bash | */script | */sleep) continue ;;
        */cat) # what bats writes its results through
          case $(tr "\0" " " <"/proc/$(sed -n "s/^PPid:\t//p" "$p/status")/cmdline") in *bats-format*) continue ;; esac ;;
      esac
      kill -9 "$pid"
    done
    for pid in $(pgrep -x sleep); do [ "$pid" -le "$3" ] || kill -9 "$pid"; done
  done
}
