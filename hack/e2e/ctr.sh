#!/bin/bash
# ctr.sh [REGEX]...: containerd's side of the story, by ctr: tasks, execs, events and their order, metrics, IO, and what happens when
# containerd or a shim dies. Runs inside `hack/testbed run` (or the VM); $CTR_RUN says which runtime. See walk.sh for its results.
# shellcheck disable=SC2009,SC2012,SC2016,SC2317,SC2086 # steps, and what they hand to `soon`, are called by name; CTR_RUN is words
. "$(dirname "$0")/walk.sh"

I=docker.io/library/busybox:latest
W=${TESTBED:-$PWD}/walk-ctr
mkdir -p "$W"
export CONTAINERD_ADDRESS=${CONTAINERD_ADDRESS:-/run/containerd/containerd.sock} CONTAINERD_NAMESPACE=${CONTAINERD_NAMESPACE:-default}
CTR_RUN=${CTR_RUN:---runtime io.containerd.runc.v2}

after_step() {
  local id
  for id in $(ctr tasks ls -q); do
    ctr tasks kill -a -s KILL "$id"
    ctr tasks delete -f "$id"
  done
  for id in $(ctr containers ls -q); do ctr containers delete "$id"; done
}

run() { ctr run $CTR_RUN "$@"; }
status_of() { ctr tasks ls | awk -v id="$1" '$1 == id {print $3}'; }
pid_of() { ctr tasks ls | awk -v id="$1" '$1 == id {print $2}'; }
shim_of() { awk '/^PPid/ {print $2}' "/proc/$(pid_of "$1")/status"; }
exec_in() { local id=$1; shift; ctr tasks exec --exec-id "x$RANDOM$RANDOM" "$id" "$@"; }
gone() { [ ! -e "/proc/$1" ]; }
shims() { ps ax -o args | grep -v grep | grep -E "containerd-shim-.*-namespace $CONTAINERD_NAMESPACE " || true; }
# Starts recording events, and waits until containerd sends them. topics NAME: those seen of that container, in order.
record_events() {
  ctr events >"$W/events" 2>&1 &
  recorder=$!
  trap 'kill $recorder' EXIT
  noticed() { ctr namespaces label "$CONTAINERD_NAMESPACE" "ready=$RANDOM" && grep -q namespaces/update "$W/events"; }
  soon noticed
}
topics() { grep -F "\"$1\"" "$W/events" | grep -oE '/tasks/[a-z-]+' | sed 's,/tasks/,,' | xargs; }
# One number of a task's metrics, by its name on cgroup v1 and v2.
metric() { ctr tasks metrics "$1" | awk -v v1="$2" -v v2="$3" '$1 == v1 || $1 == v2 {print $2}'; }

# --- run

step_run_exits_0() { exits 0 run --rm $I e2e true; }
step_run_exits_7() { exits 7 run --rm $I e2e sh -c 'exit 7'; } # core

step_run_of_a_missing_command_leaves_no_task() {
  exits 1 run --rm $I e2e no-such-command
  has "$output" "executable file not found"
  same "" "$(ctr tasks ls -q)"
  becomes "" shims
}

# ctr loses an end of input that comes before containerd knows its task ("no running task found", then it waits for ever): hence
# the second of sleep behind each input.
step_run_output_and_input() {
  same hello "$(run --rm $I e2e echo hello)"
  same piped "$({ echo piped; a_while; } | run --rm $I e2e cat)"
  run --rm $I e2e sh -c 'echo out; echo err >&2' >"$W/out" 2>"$W/err"
  same out "$(cat "$W/out")"
  same err "$(cat "$W/err")"
}

step_large_output() { same 2000000 "$(run --rm $I e2e sh -c 'yes | head -c 2000000' | wc -c)"; }

step_large_input() {
  head -c 3000000 /dev/urandom >"$W/data"
  same "$(md5sum <"$W/data")" "$({ cat "$W/data"; a_while; } | run --rm $I e2e md5sum)"
}

step_run_on_a_terminal() { # core
  exits 3 pty 40x100 '# ' 'until [ "$(stty size)" = "40 100" ]; do sleep 0.1; done; tty' '/dev/pts/0[^#]*# ' 'resize 41x101' '' \
    'until [ "$(stty size)" = "41 101" ]; do sleep 0.1; done; exit 3' -- ctr run $CTR_RUN --rm -t $I e2e sh
}

step_process_options() {
  same /tmp "$(run --rm --cwd /tmp $I e2e pwd)"
  has "$(run --rm --env A=b $I e2e env)" A=b
  has "$(run --rm --user 1000:1000 $I e2e id)" "uid=1000(user) gid=1000(user)"
  same web "$(run --rm --hostname web $I e2e hostname)"
  same 1 "$(run --rm $I e2e awk '/^NoNewPrivs/ {print $2}' /proc/self/status)"
  same 0 "$(run --rm --allow-new-privs $I e2e awk '/^NoNewPrivs/ {print $2}' /proc/self/status)"
  same 2 "$(run --rm --seccomp $I e2e awk '/^Seccomp:/ {print $2}' /proc/self/status)"
  exits 1 run --rm --read-only $I e2e touch /x
  exits 0 run --rm --net-host $I e2e true
  same "$(readlink /proc/self/ns/net)" "$(run --rm --with-ns network:/proc/self/ns/net $I e2e readlink /proc/self/ns/net)"
}

step_mounts() {
  mkdir -p "$W/bind"
  echo mounted >"$W/bind/file"
  same mounted "$(run --rm --mount "type=bind,src=$W/bind,dst=/mnt,options=rbind:ro" $I e2e cat /mnt/file)"
  exits 1 run --rm --mount "type=bind,src=$W/bind,dst=/mnt,options=rbind:ro" $I e2e touch /mnt/x
  has "$(run --rm --mount type=tmpfs,src=tmpfs,dst=/t,options=size=64k $I e2e cat /proc/mounts)" "size=64k"
}

step_limits() { # core
  run -d --memory-limit 50000000 --cpus 0.5 $I e2e sleep 100
  ctr tasks metrics --format json e2e >"$W/metrics"
  same 49999872 "$(jq -r '.memory.hierarchical_memory_limit // .memory.usage_limit' "$W/metrics")"
}

step_privileged() { exits 0 run --rm --privileged $I e2e mount -t tmpfs x /mnt; }

step_rootfs_of_the_callers_own() {
  mkdir -p "$W/rootfs"
  mkdir -p "$W/image"
  ctr images mount $I "$W/image"
  cp -a "$W/image/." "$W/rootfs/"
  ctr images unmount --rm "$W/image"
  same own "$(run --rm --rootfs "$W/rootfs" e2e /bin/echo own)"
}

step_no_pivot() { exits 0 run --rm --no-pivot $I e2e true; }

step_user_namespace() { # core
  same "0 300000 65536" "$(run --rm --uidmap 0:300000:65536 --gidmap 0:300000:65536 $I e2e cat /proc/self/uid_map | xargs)"
}

step_pid_file() {
  run -d --pid-file "$W/pid" $I e2e sleep 100
  same "$(pid_of e2e)" "$(cat "$W/pid")"
}

# --- a task's life

step_task_states() { # core
  run -d $I e2e sleep 100
  same RUNNING "$(status_of e2e)"
  ctr tasks pause e2e
  same PAUSED "$(status_of e2e)"
  ctr tasks resume e2e
  same RUNNING "$(status_of e2e)"
  exits 1 ctr tasks delete e2e
  ctr tasks kill -s KILL e2e
  becomes STOPPED status_of e2e
  exits 1 ctr tasks kill e2e
  has "$output" "not found"
  exits 0 ctr tasks delete e2e
  has "$output" "exit code 137"
  ctr tasks start -d e2e
  same RUNNING "$(status_of e2e)"
}

step_kill_with_a_signal() {
  run -d $I e2e sh -c 'trap "exit 42" USR2; while :; do sleep 0.1; done'
  sleep 0.5
  ctr tasks kill -s USR2 e2e
  becomes STOPPED status_of e2e
  exits 0 ctr tasks delete e2e
  has "$output" "exit code 42"
}

step_kill_all() { # core
  run -d --with-ns pid:/proc/1/ns/pid $I e2e sh -c 'sleep 4331 & sleep 4332'
  shows "sleep 4331" ps ax -o args
  ctr tasks kill -a -s KILL e2e
  becomes STOPPED status_of e2e
  not_running() { [[ $'\n'$(ps ax -o args)$'\n' != *$'\n'"sleep 4331"$'\n'* ]]; }
  soon not_running
}

step_paused_task_can_be_killed() {
  run -d $I e2e sleep 100
  ctr tasks pause e2e
  ctr tasks kill -s KILL e2e
  becomes STOPPED status_of e2e
}

step_exec() { # core
  run -d $I e2e sleep 100
  same hello "$(exec_in e2e echo hello)"
  exits 9 ctr tasks exec --exec-id one e2e sh -c 'exit 9'
  same /tmp "$(ctr tasks exec --exec-id two --cwd /tmp e2e pwd)"
  has "$(ctr tasks exec --exec-id three --user 1000:1000 e2e id)" "uid=1000(user)"
  same piped "$({ echo piped; a_while; } | ctr tasks exec --exec-id four e2e cat)"
  exits 1 ctr tasks exec --exec-id five e2e no-such-command
  has "$output" "executable file not found"
  exits 4 pty 30x90 '# ' 'until [ "$(stty size)" = "30 90" ]; do sleep 0.1; done; exit 4' -- ctr tasks exec -t --exec-id six e2e sh
}

step_exec_id_is_used_once() {
  run -d $I e2e sleep 100
  ctr tasks exec -d --exec-id one e2e sleep 50
  exits 1 ctr tasks exec -d --exec-id one e2e sleep 50
  has "$output" "already exists"
}

step_ps_knows_execs() {
  run -d $I e2e sleep 100
  ctr tasks exec -d --exec-id background e2e sleep 50
  has "$(ctr tasks ps e2e)" background
  same 3 "$(ctr tasks ps e2e | wc -l)"
}

step_metrics() { # core
  run -d $I e2e sleep 100
  same 1 "$(metric e2e pids.current pids.current)"
  [ "$(metric e2e memory.usage_in_bytes memory.usage)" -gt 0 ]
  [ "$(metric e2e cpuacct.usage cpu.usage_usec)" -gt 0 ]
  ctr tasks metrics --format json e2e | jq -e '.pids.current == 1'
}

step_attach() {
  run -d $I e2e sh -c 'while :; do echo tick; sleep 0.1; done'
  # by SIGKILL, for it hands every other signal on to the container
  timeout -s KILL 3 ctr tasks attach e2e >"$W/out" || true
  grep -q tick "$W/out"
}

step_log_file() {
  run -d --log-uri "file://$W/log/deep" $I e2e sh -c 'echo out; echo err >&2'
  becomes STOPPED status_of e2e
  # runc's shim says so while it is still copying
  becomes "err out" sorted "$W/log/deep"
}
sorted() { sort "$1" | xargs; }

step_log_binary() {
  cat >"$W/logger" <<F
#!/bin/bash
# fd 3: the container's stdout, 4: its stderr, 5: closed when ready
exec 5>&-
echo "\$CONTAINER_ID \$CONTAINER_NAMESPACE \$*" >"$W/logged"
cat <&3 >>"$W/logged"
F
  chmod +x "$W/logger"
  run -d --log-uri "binary://$W/logger?key=value" $I e2e echo "to the logger"
  becomes STOPPED status_of e2e
  shows "to the logger" cat "$W/logged"
  same "e2e $CONTAINERD_NAMESPACE key value" "$(head -n 1 "$W/logged")"
}

step_group_shares_a_shim() { # core
  run -d --annotation io.containerd.runc.v2.group=walk $I e2e sleep 100
  run -d --annotation io.containerd.runc.v2.group=walk $I e2e2 sleep 100
  same "$(shim_of e2e)" "$(shim_of e2e2)"
  ctr tasks kill -s KILL e2e
  becomes STOPPED status_of e2e
  ctr tasks delete e2e || true
  same hello "$(exec_in e2e2 echo hello)"
}

# --- events

step_events_in_order() { # core
  record_events
  run -d $I e2e sh -c 'until [ -e /go ]; do sleep 0.1; done'
  ctr tasks exec --exec-id one e2e touch /go
  becomes STOPPED status_of e2e
  ctr tasks delete e2e
  becomes "create start exec-added exec-started exit exit delete" topics e2e
}

step_inits_exit_is_the_last_one() { # core
  record_events
  run -d $I e2e sleep 100
  local n
  for n in 1 2 3 4 5; do ctr tasks exec -d --exec-id "x$n" e2e sleep 100; done
  ctr tasks kill -s KILL e2e
  exited() { grep '/tasks/exit' "$W/events" | grep -o '"id":"[^"]*"' | cut -d'"' -f4 | xargs; }
  six() { [ "$(exited | wc -w)" = 6 ]; }
  soon six
  same e2e "$(exited | awk '{print $NF}')"
}

step_pause_and_resume_events() {
  record_events
  run -d $I e2e sleep 100
  ctr tasks pause e2e
  ctr tasks resume e2e
  becomes "create start paused resumed" topics e2e
}

step_out_of_memory_event() { # core
  record_events
  exits 137 run --rm --memory-limit 16000000 $I e2e tail /dev/zero
  shows " oom" topics e2e
}

# --- containerd and the shim come and go

step_containerd_is_restarted() { # limit 120 core
  mkdir -p "$W/bind"
  run -d --log-uri "file://$W/log-restart" --mount "type=bind,src=$W/bind,dst=/mnt,options=rbind" $I e2e \
    sh -c 'i=0; while :; do i=$((i + 1)); echo $i; sleep 0.1; done'
  local pid
  pid=$(pid_of e2e)
  ctr tasks exec -d --exec-id before e2e sleep 100
  engine kill containerd
  sleep 1
  engine start containerd
  becomes RUNNING status_of e2e
  same "$pid" "$(pid_of e2e)"
  has "$(ctr tasks ps e2e)" before
  same hello "$(exec_in e2e echo hello)"
  ctr tasks kill -s KILL e2e
  becomes STOPPED status_of e2e
  same "$(tail -n 1 "$W/log-restart")" "$(wc -l <"$W/log-restart")" "lines and the last number"
}

step_task_that_ends_while_containerd_is_away_is_cleaned_up() { # limit 120
  run -d $I e2e sh -c 'sleep 1; exit 33'
  engine kill containerd
  sleep 2
  engine start containerd
  becomes "" status_of e2e
  becomes "" shims
  soon [ ! -e "/run/containerd/io.containerd.runtime.v2.task/$CONTAINERD_NAMESPACE/e2e" ]
  run -d $I e2e2 sleep 100
  same hello "$(exec_in e2e2 echo hello)"
}

step_shim_is_killed() { # core
  record_events
  run -d $I e2e sleep 100
  local pid shim
  pid=$(pid_of e2e) shim=$(shim_of e2e)
  kill -9 "$shim"
  soon gone "$pid"
  soon gone "$shim"
  becomes "create start exit delete" topics e2e
  becomes "" status_of e2e
  local bundle=/run/containerd/io.containerd.runtime.v2.task/$CONTAINERD_NAMESPACE/e2e
  soon [ ! -e "$bundle" ]
  soon not_mounted
  becomes "" find /sys/fs/cgroup -type d -path "*$CONTAINERD_NAMESPACE/e2e*"
}
not_mounted() { ! grep -q "$CONTAINERD_NAMESPACE/e2e/" /proc/mounts; }

step_everything_is_killed() { # limit 120 core
  run -d $I e2e sleep 100
  local pid shim
  pid=$(pid_of e2e) shim=$(shim_of e2e)
  engine kill containerd
  kill -9 "$shim"
  sleep 0.5
  engine start containerd
  soon gone "$pid"
  becomes "" status_of e2e
  soon [ ! -e "/run/containerd/io.containerd.runtime.v2.task/$CONTAINERD_NAMESPACE/e2e" ]
  soon not_mounted
  # the dead shim's socket is in nobody's way
  ctr containers delete e2e
  exits 0 run --rm $I e2e true
}

step_shim_is_where_it_belongs() {
  run -d $I e2e sleep 100
  local shim
  shim=$(shim_of e2e)
  [[ $(tr '\0' ' ' <"/proc/$shim/cmdline") == *containerd-shim-* ]] || fail "its parent is no shim"
  local socket
  socket=$(find /run/containerd/s -type s | head -n 1)
  same 600 "$(stat -c %a "$socket")"
  # not in the container's cgroup, and no descriptor of the container's console or rootfs
  ! grep -q "$CONTAINERD_NAMESPACE/e2e" "/proc/$shim/cgroup" || fail "in its cgroup"
}

step_socket_goes_with_its_shim() { # core
  local before
  before=$(find /run/containerd/s -type s | sort)
  run -d $I e2e-socket sleep 100
  [ "$(find /run/containerd/s -type s | sort)" != "$before" ] || fail "no socket while it runs"
  ctr tasks kill -s KILL e2e-socket
  becomes STOPPED status_of e2e-socket
  ctr tasks delete e2e-socket || true
  sockets() { find /run/containerd/s -type s | sort; }
  becomes "$before" sockets
}

step_execs_leak_nothing_in_the_shim() { # limit 180
  run -d $I e2e sleep 1000
  local shim n fds threads
  shim=$(shim_of e2e)
  for n in $(seq 5); do ctr tasks exec --exec-id "warm$n" e2e true; done
  fds=$(ls "/proc/$shim/fd" | wc -l)
  threads=$(ls "/proc/$shim/task" | wc -l)
  for n in $(seq 30); do ctr tasks exec --exec-id "x$n" e2e true; done
  few_fds() { [ "$(ls "/proc/$shim/fd" | wc -l)" -le $((fds + 2)) ]; }
  few_threads() { [ "$(ls "/proc/$shim/task" | wc -l)" -le $((threads + 4)) ]; }
  soon few_fds
  soon few_threads
  same "" "$(ps -o stat= --ppid "$shim" | grep Z || true)" "zombies"
}

step_100_containers_at_once() { # limit 300
  seq 100 | xargs -P 8 -I{} ctr run $CTR_RUN -d $I "many{}" sh -c 'until [ -e /go ]; do sleep 1; done; exit {}' || fail "not all started"
  same 100 "$(ctr tasks ls | grep -c RUNNING)"
  seq 100 | xargs -P 8 -I{} ctr tasks exec --exec-id go "many{}" touch /go
  stopped() { [ "$(ctr tasks ls | grep -c STOPPED)" = 100 ]; }
  soon stopped
  local n
  for n in 1 50 100; do has "$(ctr tasks delete "many$n" 2>&1)" "exit code $n"; done
  seq 100 | grep -vxE '1|50|100' | sed s/^/many/ | xargs -n 20 ctr tasks delete 2>/dev/null || true
  same "" "$(ctr tasks ls -q)"
  seq 100 | sed s/^/many/ | xargs ctr containers delete
  becomes "" shims
}

# By way of an image: ctr hands folders and --exit to containerd's own runtime type alone.
step_checkpoint_and_restore() { # limit 120
  command -v criu >/dev/null || skip "no criu"
  criu check >/dev/null 2>&1 || skip "criu check fails on this kernel"
  record_events
  run -d --null-io $I e2e sh -c 'i=0; while :; do i=$((i + 1)); echo $i >/dev/shm/count; sleep 0.1; done'
  counted() { exec_in e2e cat /dev/shm/count; }
  beyond() { [ "$(counted)" -gt "$1" ]; }
  soon beyond 5
  ctr images delete localhost/checkpoint:1 || true
  ctr containers checkpoint --task --image e2e localhost/checkpoint:1
  same RUNNING "$(status_of e2e)"
  local stood; stood=$(counted)
  ctr tasks kill -s KILL e2e
  becomes STOPPED status_of e2e
  # containerd's own shim says nothing of it
  case $CTR_RUN in *cofferdam.v2*) has "$(topics e2e)" "paused checkpointed resumed" ;; esac
  ctr tasks delete e2e || true
  ctr containers delete e2e
  ctr containers restore --live e2e localhost/checkpoint:1 </dev/null >"$W/restored" 2>&1 &
  becomes RUNNING status_of e2e
  soon beyond 5
  [ "$(counted)" -lt $((stood + 200)) ] || fail "counts from $(counted), stood at $stood"
  ctr tasks kill -s KILL e2e
  becomes STOPPED status_of e2e
  wait $! || true
  ctr images delete localhost/checkpoint:1
}

step_checkpoint_and_exit() {
  command -v criu >/dev/null || skip "no criu"
  criu check >/dev/null 2>&1 || skip "criu check fails on this kernel"
  run -d --null-io $I e2e sleep 1000
  ctr tasks checkpoint --exit --image-path "$W/checkpoint" e2e
  case $CTR_RUN in
    *runc.v2*) ;;
    # ctr says nothing of --exit and folders to others' shims
    *) same RUNNING "$(status_of e2e)"; return ;;
  esac
  becomes STOPPED status_of e2e
  [ -e "$W/checkpoint/inventory.img" ] || fail "no image"
}

step_nothing_is_left() { # core
  after_step
  becomes "" shims
  local folder
  for folder in "/run/containerd/io.containerd.runtime.v2.task/$CONTAINERD_NAMESPACE" "/run/containerd/runc/$CONTAINERD_NAMESPACE" \
    "/run/containerd/cofferdam/$CONTAINERD_NAMESPACE"; do
    same "" "$(ls "$folder" 2>/dev/null || true)" "what is in $folder"
  done
  soon no_mounts
}
no_mounts() { ! grep -q "runtime.v2.task/$CONTAINERD_NAMESPACE/" /proc/mounts; }

walk "$@"
