#!/bin/bash
# podman.sh [REGEX]...: podman and conmon with the tested runtime by path, in containers.conf as README.md has it. Runs inside
# `hack/testbed run`. See walk.sh.
# shellcheck disable=SC2016,SC2317 # steps, and what they hand to `soon`, are called by name
. "$(dirname "$0")/walk.sh"

W=$TESTBED/walk-podman
mkdir -p "$W"
case ${CTR_RUN:-} in *--runc-binary*) RUNTIME=${CTR_RUN##*--runc-binary } ;; *) RUNTIME=$(command -v runc) ;; esac
# Where systemd is, cgroups are its own.
MANAGER=cgroupfs GROUP=/${CONTAINERD_NAMESPACE:-podman}
[ -z "${TESTBED_VM:-}" ] || MANAGER=systemd GROUP=${CONTAINERD_NAMESPACE:-podman}.slice
export RUNTIME CONTAINERS_CONF=$W/containers.conf CONTAINERS_STORAGE_CONF=$W/storage.conf PODMAN_IGNORE_CGROUPSV1_WARNING=1

prepare() {
  [ ! -e "$W/ready" ] || return 0
  cat >"$CONTAINERS_CONF" <<F
[engine]
runtime = "tested"
cgroup_manager = "$MANAGER"
events_logger = "file"
runtime_supports_nocgroup = ["tested"]
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
run() { podman run --cgroup-parent "$GROUP" "$@"; }

step_runtime_is_the_one_asked_for() { # core
  run -d --name e2e busybox sleep 100
  same tested "$(inspect e2e '{{.OCIRuntime}}')"
  has "$(podman info)" "$RUNTIME"
}
step_run_exits_7() { exits 7 run --rm busybox sh -c 'exit 7'; } # core
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
step_terminal() { # core
  exits 3 pty 40x100 '# ' 'until [ "$(stty size)" = "40 100" ]; do sleep 0.1; done; exit 3' -- \
    podman run --cgroup-parent "$GROUP" --rm -it busybox sh
}
step_exec() { # core
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
step_pause_and_unpause() { # core
  run -d --name e2e busybox sleep 100
  podman pause e2e
  same paused "$(inspect e2e '{{.State.Status}}')"
  podman unpause e2e
  same running "$(inspect e2e '{{.State.Status}}')"
}
step_limits_and_update() { # core
  run -d --name e2e --memory 50m --pids-limit 33 busybox sleep 100
  limit() { podman exec e2e sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'; }
  same 52428800 "$(limit)"
  podman update --memory 64m e2e
  same 67108864 "$(limit)"
}
step_pod_shares_namespaces() { # core
  podman pod create --name walk --share ipc,uts,net --infra-image busybox --infra-command 'sleep 1000' --network none \
    --cgroup-parent "$GROUP"
  podman run -d --pod walk --name one busybox sleep 100
  podman run -d --pod walk --name two busybox sleep 100
  local kind
  for kind in ipc uts net; do same "$(podman exec one readlink /proc/self/ns/$kind)" "$(podman exec two readlink /proc/self/ns/$kind)" $kind; done
}
step_user_namespace() { # core
  same "0 300000 65536" "$(run --rm --uidmap 0:300000:65536 --gidmap 0:300000:65536 busybox cat /proc/self/uid_map | xargs)"
}
step_read_only_and_capabilities() {
  exits 1 run --rm --read-only --read-only-tmpfs=false busybox touch /x
  same 0000000000000000 "$(run --rm --cap-drop all busybox awk '/^CapBnd/ {print $2}' /proc/self/status)"
}
# What podman has of crun's, and hands to no other runtime that might take it.
cruns() { "$RUNTIME" features | grep -q '"copy-symlink"' || skip "the runtime has not crun's mount options"; }
step_links_and_ids_of_volumes() {
  cruns
  mkdir -p "$W/volume"
  ln -sfn file "$W/volume/link"
  echo text >"$W/volume/file"
  same file "$(run --rm --mount "type=bind,src=$W/volume/link,dst=/link,no-dereference" busybox readlink /link)"
  same "5 7" "$(run --rm -v "$W/volume:/v:idmap=uids=0-5-1;gids=0-7-1" busybox stat -c '%u %g' /v/file)"
  same "9 0" "$(run --rm --uidmap 0:300000:65536 --gidmap 0:400000:65536 -v "$W/volume:/v:idmap=uids=@0-9-1;gids=@0-0-1" \
    busybox stat -c '%u %g' /v/file)"
}
step_init_and_healthcheck() {
  run -d --name e2e --health-cmd 'test -e /tmp/well' --health-interval disable busybox sleep 100
  exits 1 podman healthcheck run e2e
  podman exec e2e touch /tmp/well
  exits 0 podman healthcheck run e2e
}

step_without_a_cgroup() {
  "$RUNTIME" --help | grep -q -- --cgroup-manager || skip "the runtime has no --cgroup-manager"
  same "$(cat /proc/self/cgroup)" "$(podman run --rm --cgroups=disabled --cgroupns=host busybox cat /proc/self/cgroup)"
  exits 126 podman run --rm --cgroups=disabled --read-only busybox /etc/passwd
}

# An ordinary user with ids of its own, and podman as that user calls it: no cgroups, no privileges.
as_user() {
  setpriv --reuid 7070 --regid 7070 --init-groups env -i PATH="$PATH" HOME=/home/walker XDG_RUNTIME_DIR=/run/walker \
    PODMAN_IGNORE_CGROUPSV1_WARNING=1 CONTAINERS_CONF="$W/user/containers.conf" CONTAINERS_STORAGE_CONF="$W/user/storage.conf" podman "$@"
}
make_user() {
  [ ! -e "$W/user/ready" ] || return 0
  useradd -m -u 7070 walker
  grep -q ^walker: /etc/subuid || echo walker:200000:65536 | tee -a /etc/subgid >>/etc/subuid
  install -d -o 7070 -m 700 /run/walker
  install -d -o 7070 "$W/user"
  chmod 755 "$TESTBED" "$W"
  install -m 755 "$RUNTIME" "$W/user/runtime"
  install -m 644 "$TESTBED_IMAGE" "$W/user/image.tar"
  sed "s,$RUNTIME,$W/user/runtime," "$CONTAINERS_CONF" >"$W/user/containers.conf"
  printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/user/graph"\nrunroot = "/run/walker/containers"\n' "$W" >"$W/user/storage.conf"
  as_user load -q -i "$W/user/image.tar" >/dev/null
  touch "$W/user/ready"
}
step_an_ordinary_user() { # limit 180
  [ ! -d /run/systemd/system ] || skip "a user without a session of systemd's"
  make_user
  has "$(as_user run --rm busybox cat /proc/self/uid_map | xargs)" "0 7070 1 1 "
  exits 7 as_user run --rm busybox sh -c 'exit 7'
  same piped "$(echo piped | as_user run --rm -i busybox cat)"
  has "$(as_user run --rm --userns keep-id busybox id)" "uid=7070"
  as_user run -d --name user busybox sleep 100
  same hello "$(as_user exec user echo hello)"
  as_user rm -f -t 0 user
}

step_groups_of_an_ordinary_user() { # limit 180
  [ ! -d /run/systemd/system ] || skip "a user without a session of systemd's"
  cruns
  getent group shared >/dev/null || groupadd -g 7071 shared
  make_user
  usermod -aG shared walker
  install -d -g shared -m 750 "$W/user/shared"
  echo reached >"$W/user/shared/file"
  exits 1 as_user run --rm -v "$W/user/shared:/shared" busybox cat /shared/file
  same reached "$(as_user run --rm --group-add keep-groups -v "$W/user/shared:/shared" busybox cat /shared/file)"
  as_user run -d --name user --group-add keep-groups -v "$W/user/shared:/shared" busybox sleep 100
  same reached "$(as_user exec user cat /shared/file)"
  as_user rm -f -t 0 user
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
