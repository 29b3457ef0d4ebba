#!/bin/bash
# podman.sh [REGEX]...: podman and conmon with the tested runtime by path, in containers.conf as README.md has it. Runs inside
# `hack/testbed run`. See walk.sh.
# shellcheck disable=SC2016,SC2317 # steps, and what they hand to `soon`, are called by name
. "$(dirname "$0")/walk.sh"

W=$TESTBED/walk-podman
mkdir -p "$W"
case ${CTR_RUN:-} in *--runc-binary*) RUNTIME=${CTR_RUN##*--runc-binary } ;; *) RUNTIME=$(command -v runc) ;; esac
export RUNTIME CONTAINERS_CONF=$W/containers.conf CONTAINERS_STORAGE_CONF=$W/storage.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1

prepare() {
  [ ! -e "$W/ready" ] || return 0
  cat >"$CONTAINERS_CONF" <<F
[engine]
runtime = "tested"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
tested = ["$RUNTIME"]
[containers]
log_driver = "k8s-file"
netns = "none"
F
  printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/graph"\nrunroot = "/run/podman-e2e"\n' "$W" >"$CONTAINERS_STORAGE_CONF"
  podman load -q -i "$TESTBED_IMAGE" >/dev/null
  touch "$W/ready"
}

after_step() {
  podman rm -a -f -t 0
  podman pod rm -a -f
}

inspect() { podman inspect -f "$2" "$1"; }
run() { podman run --cgroup-parent "/${CONTAINERD_NAMESPACE:-podman}" "$@"; }

step_runtime_is_the_one_asked_for() {
  run -d --name e2e busybox sleep 100
  same tested "$(inspect e2e '{{.OCIRuntime}}')"
  has "$(podman info)" "$RUNTIME"
}
step_run_exits_7() { exits 7 run --rm busybox sh -c 'exit 7'; }
step_run_exits_126_when_not_executable() { exits 126 run --rm busybox /etc/passwd; }
step_run_exits_127_when_missing() {
  exits 127 run --rm busybox no-such-command
  has "$output" "no-such-command"
}
step_input_and_output() {
  same piped "$(echo piped | run --rm -i busybox cat)"
  run --rm busybox sh -c 'echo out; echo err >&2' >"$W/out" 2>"$W/err"
  same "out err" "$(cat "$W/out" "$W/err" | xargs)"
}
step_terminal() {
  exits 3 pty 40x100 '# ' 'until [ "$(stty size)" = "40 100" ]; do sleep 0.1; done; exit 3' -- \
    podman run --cgroup-parent "/${CONTAINERD_NAMESPACE:-podman}" --rm -it busybox sh
}
step_exec() {
  run -d --name e2e busybox sleep 100
  same hello "$(podman exec e2e echo hello)"
  exits 9 podman exec e2e sh -c 'exit 9'
  exits 127 podman exec e2e no-such-command
  has "$(podman exec -u 1000:1000 e2e id)" "uid=1000"
  exits 4 pty 30x90 '# ' 'exit 4' -- podman exec -it e2e sh
}
step_logs_and_stop() {
  run -d --name e2e busybox sh -c 'trap "exit 3" TERM; echo ready; while :; do sleep 0.1; done'
  shows ready podman logs e2e
  podman stop -t 20 e2e
  same 3 "$(inspect e2e '{{.State.ExitCode}}')"
  podman start e2e
  same running "$(inspect e2e '{{.State.Status}}')"
}
step_pause_and_unpause() {
  run -d --name e2e busybox sleep 100
  podman pause e2e
  same paused "$(inspect e2e '{{.State.Status}}')"
  podman unpause e2e
  same running "$(inspect e2e '{{.State.Status}}')"
}
step_limits_and_update() {
  run -d --name e2e --memory 50m --pids-limit 33 busybox sleep 100
  limit() { podman exec e2e sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'; }
  same 52428800 "$(limit)"
  podman update --memory 64m e2e
  same 67108864 "$(limit)"
}
step_pod_shares_namespaces() {
  podman pod create --name walk --share ipc,uts,net --infra-image busybox --infra-command 'sleep 1000' --network none \
    --cgroup-parent "/${CONTAINERD_NAMESPACE:-podman}"
  podman run -d --pod walk --name one busybox sleep 100
  podman run -d --pod walk --name two busybox sleep 100
  local kind
  for kind in ipc uts net; do same "$(podman exec one readlink /proc/self/ns/$kind)" "$(podman exec two readlink /proc/self/ns/$kind)" $kind; done
}
step_user_namespace() {
  same "0 300000 65536" "$(run --rm --uidmap 0:300000:65536 --gidmap 0:300000:65536 busybox cat /proc/self/uid_map | xargs)"
}
step_read_only_and_capabilities() {
  exits 1 run --rm --read-only --read-only-tmpfs=false busybox touch /x
  same 0000000000000000 "$(run --rm --cap-drop all busybox awk '/^CapBnd/ {print $2}' /proc/self/status)"
}
step_init_and_healthcheck() {
  run -d --name e2e --health-cmd 'test -e /tmp/well' --health-interval disable busybox sleep 100
  exits 1 podman healthcheck run e2e
  podman exec e2e touch /tmp/well
  exits 0 podman healthcheck run e2e
}

counted() { podman exec e2e cat /dev/shm/count; }
beyond() { [ "$(counted)" -gt "$1" ]; }
step_checkpoint_and_restore() { # limit 120
  command -v criu >/dev/null || skip "no criu"
  criu check >/dev/null 2>&1 || skip "criu check fails on this kernel"
  run -d --name e2e busybox sh -c 'i=0; while :; do i=$((i + 1)); echo $i >/dev/shm/count; sleep 0.1; done'
  soon beyond 5
  podman container checkpoint e2e
  same exited "$(inspect e2e '{{.State.Status}}')"
  podman container restore e2e
  same running "$(inspect e2e '{{.State.Status}}')"
  soon beyond 7
  # and as another container, from a file
  podman container checkpoint --leave-running --export "$W/e2e.tar" e2e
  same running "$(inspect e2e '{{.State.Status}}')"
  podman rm -f -t 0 e2e
  podman container restore --import "$W/e2e.tar"
  same running "$(inspect e2e '{{.State.Status}}')"
  soon beyond 9
}
step_checkpoint_of_a_terminal() { # limit 120
  command -v criu >/dev/null || skip "no criu"
  criu check >/dev/null 2>&1 || skip "criu check fails on this kernel"
  run -dt --name e2e busybox sh -c 'i=0; while :; do i=$((i + 1)); echo round $i; sleep 0.1; done'
  shows "round 5" podman logs e2e
  podman container checkpoint e2e
  local lines; lines=$(podman logs e2e | wc -l)
  podman container restore e2e
  grows() { [ "$(podman logs e2e | wc -l)" -gt "$lines" ]; }
  soon grows
}

prepare
walk "$@"
