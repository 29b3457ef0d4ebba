#!/bin/bash
# cri.sh [REGEX]...: Kubernetes without Kubernetes: pods over containerd's CRI socket, as the kubelet asks for them, with the tested
# runtime as the RuntimeClass "e2e" (hack/testbed.d/runtime.sh writes its config.toml, with variants of it). Runs inside `hack/testbed run`. See walk.sh.
# shellcheck disable=SC2009,SC2016,SC2317 # steps, and what they hand to `soon`, are called by name
. "$(dirname "$0")/walk.sh"

W=$TESTBED/walk-cri
I=docker.io/library/busybox:latest
mkdir -p "$W/logs"
CRI_GROUP=${CRI_GROUP:-${CONTAINERD_NAMESPACE:-cri}}
export CONTAINERD_ADDRESS=${CONTAINERD_ADDRESS:-/run/containerd/containerd.sock} CONTAINERD_NAMESPACE=k8s.io CRI_GROUP
TASKS=/run/containerd/io.containerd.runtime.v2.task/k8s.io

after_step() {
  local id
  for id in $(cri ListPodSandbox | jq -r '.items[]?.id'); do
    cri StopPodSandbox "{\"pod_sandbox_id\": \"$id\"}"
    cri RemovePodSandbox "{\"pod_sandbox_id\": \"$id\"}"
  done
}

# What a node has: images (the sandbox's own among them), and a network.
prepare() {
  [ ! -e "$W/ready" ] || return 0
  mkdir -p "$TESTBED/cni" "$W/pause"
  cat >"$TESTBED/cni/10-e2e.conflist" <<F
{"cniVersion": "1.0.0", "name": "e2e", "plugins": [{"type": "ptp", "ipMasq": false,
  "ipam": {"type": "host-local", "dataDir": "/run/cni", "subnet": "10.97.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}}]}
F
  tar -C "$W/pause" -xf "$TESTBED_IMAGE"
  jq '.config.Cmd = ["sleep", "100000"]' "$W/pause/config.json" >"$W/pause/new" && mv "$W/pause/new" "$W/pause/config.json"
  jq '.[0].RepoTags = ["pause:latest"]' "$W/pause/manifest.json" >"$W/pause/new" && mv "$W/pause/new" "$W/pause/manifest.json"
  tar -C "$W/pause" -cf "$W/pause.tar" config.json layer.tar manifest.json
  ctr images import "$TESTBED_IMAGE" >/dev/null
  ctr images import "$W/pause.tar" >/dev/null
  touch "$W/ready"
}

# pod NAME [CONFIG [CLASS]]: runs a pod's sandbox; JSON merged into its config. Its id is in $pod, its config in $pod_config.
pod() {
  pod_config=$(jq -nc --arg name "$1" --arg logs "$W/logs" --arg group "/$CRI_GROUP" --argjson more "${2:-null}" '{
    metadata: {name: $name, uid: $name, namespace: "default"}, hostname: $name, log_directory: $logs,
    linux: {cgroup_parent: $group, security_context: {namespace_options: {pid: 1}}}} * ($more // {})')
  soon network
  pod=$(cri RunPodSandbox "{\"config\": $pod_config, \"runtime_handler\": \"${3:-e2e}\"}" | jq -er .pod_sandbox_id)
}
network() { [[ $(cri Status '{"verbose": 1}' | jq -r '.info.lastCNILoadStatus') == OK ]]; }
# container NAME CONFIG CMD...: makes and starts a container in $pod, with the pod's namespaces; JSON merged into its config. Its id is
# in $container.
container() {
  local name=$1 more=$2 config; shift 2
  config=$(jq -nc --arg name "$name" --arg image "$I" --argjson more "$more" --argjson pod "$pod_config" '{
    metadata: {name: $name}, image: {image: $image}, log_path: "\($name).log", command: $ARGS.positional,
    linux: {security_context: {namespace_options: $pod.linux.security_context.namespace_options}}} * $more' --args -- "$@")
  container=$(cri CreateContainer "{\"pod_sandbox_id\": \"$pod\", \"config\": $config, \"sandbox_config\": $pod_config}" |
    jq -er .container_id)
  cri StartContainer "{\"container_id\": \"$container\"}" >/dev/null
}
# inside ID CMD...: what a command prints in there; it must succeed.
inside() {
  local answer id=$1; shift
  answer=$(cri ExecSync "$(jq -nc --arg id "$id" '{container_id: $id, cmd: $ARGS.positional, timeout: 60}' --args -- "$@")")
  jq -e '(.exit_code // 0) == 0' <<<"$answer" >/dev/null || fail "$*: $answer"
  jq -r '.stdout // ""' <<<"$answer"
}
status_of() { cri ContainerStatus "{\"container_id\": \"$1\"}" | jq -r "$2"; }
pid_of() { cri ContainerStatus "{\"container_id\": \"$1\", \"verbose\": 1}" | jq -r '.info.info | fromjson | .pid'; }
pod_pid() { cri PodSandboxStatus "{\"pod_sandbox_id\": \"$1\", \"verbose\": 1}" | jq -r '.info.info | fromjson | .pid'; }
parent_of() { awk '/^PPid/ {print $2}' "/proc/$1/status"; }
shims() { ps ax -o args | grep -v grep | grep -E 'containerd-shim-.*-namespace k8s.io' || true; }
namespace_of() { readlink "/proc/$1/ns/$2"; }

# --- pods

step_pod_of_two_containers_is_one_shim() { # core
  pod two '{"linux": {"security_context": {"namespace_options": {"pid": 0}}}}'
  container a '{}' sleep 1001
  local a=$container b kind sandbox
  container b '{}' sleep 1002
  b=$container
  a=$(pid_of "$a") sandbox=$(pod_pid "$pod")
  b=$(pid_of "$b")
  same 1 "$(shims | wc -l)" "shims"
  same "$(parent_of "$sandbox")" "$(parent_of "$a")"
  same "$(parent_of "$sandbox")" "$(parent_of "$b")"
  for kind in net ipc pid uts; do
    same "$(namespace_of "$sandbox" $kind)" "$(namespace_of "$a" $kind)" "$kind of the first"
    same "$(namespace_of "$sandbox" $kind)" "$(namespace_of "$b" $kind)" "$kind of the second"
  done
  [ "$(namespace_of "$a" mnt)" != "$(namespace_of "$b" mnt)" ] || fail "one mount namespace for both"
  has "$(inside "$container" ps -o args)" "sleep 1001"
  has "$(inside "$container" ip address)" "10.97."
}

step_containers_have_pid_namespaces_of_their_own() {
  pod own
  container a '{}' sleep 1003
  local a=$container
  container b '{}' sleep 1004
  lacks "$(inside "$container" ps -o args)" "sleep 1003"
  same sleep "$(inside "$a" cat /proc/1/comm)"
}

step_container_ends_and_is_restarted() { # core
  pod restarts
  container first '{}' sh -c 'echo out; echo err >&2; exit 5'
  is_exited() { [ "$(status_of "$container" .status.state)" = 2 ]; }
  soon is_exited
  same 5 "$(status_of "$container" .status.exit_code)"
  same Error "$(status_of "$container" .status.reason)"
  shows "stdout F out" cat "$W/logs/first.log"
  shows "stderr F err" cat "$W/logs/first.log"
  cri RemoveContainer "{\"container_id\": \"$container\"}"
  container first '{"metadata": {"attempt": 1}}' sleep 1000
  same 1 "$(status_of "$container" .status.state)"
}

step_container_that_cannot_start() {
  pod missing
  if output=$(container a '{}' no-such-command 2>&1); then fail "it started"; fi
  has "$output" "executable file not found"
  container b '{}' sleep 1000
  same "" "$(inside "$container" true)"
}

step_exec() { # core
  pod exec
  container a '{"envs": [{"key": "A", "value": "b c"}], "working_dir": "/tmp"}' sleep 1000
  same "b c /tmp" "$(inside "$container" sh -c 'echo "$A $PWD"')"
  local answer
  answer=$(cri ExecSync "{\"container_id\": \"$container\", \"cmd\": [\"sh\", \"-c\", \"echo err >&2; exit 9\"]}")
  same "9 err" "$(jq -r '"\(.exit_code) \(.stderr)"' <<<"$answer" | xargs)"
  if output=$(cri ExecSync "{\"container_id\": \"$container\", \"cmd\": [\"sleep\", \"50\"], \"timeout\": 1}" 2>&1); then
    fail "no time limit: $output"
  fi
  has "$output" "timeout 1s exceeded"
}

step_limits_statistics_and_update() { # core
  pod limits
  container a '{"linux": {"resources": {"memory_limit_in_bytes": 50331648, "cpu_period": 100000, "cpu_quota": 50000, "oom_score_adj": 900}}}' \
    sleep 1000
  limit() { inside "$container" sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true'; }
  same 50331648 "$(limit)"
  same 900 "$(inside "$container" cat /proc/1/oom_score_adj)"
  cri UpdateContainerResources "{\"container_id\": \"$container\", \"linux\": {\"memory_limit_in_bytes\": 67108864}}"
  same 67108864 "$(limit)"
  local stats
  measured() {
    stats=$(cri ContainerStats "{\"container_id\": \"$container\"}")
    jq -e '.stats.cpu.usage_core_nano_seconds.value > 0 and .stats.memory.working_set_bytes.value > 0' <<<"$stats"
  }
  soon measured
}

step_out_of_memory_is_the_reason() { # core
  pod oom
  container a '{"linux": {"resources": {"memory_limit_in_bytes": 16777216}}}' tail /dev/zero
  becomes OOMKilled status_of "$container" .status.reason
  same 137 "$(status_of "$container" .status.exit_code)"
}

step_security_context() { # core
  pod secure '{"linux": {"security_context": {"seccomp": {"profile_type": 0}}}}'
  container a '{"linux": {"security_context": {"run_as_user": {"value": 1000}, "readonly_rootfs": 1, "no_new_privs": 1,
    "capabilities": {"drop_capabilities": ["ALL"]}, "seccomp": {"profile_type": 0},
    "masked_paths": ["/proc/kcore"], "readonly_paths": ["/proc/sys"]}}}' sleep 1000
  same 1000 "$(inside "$container" id -u)"
  local status
  status=$(inside "$container" cat /proc/self/status)
  same 1 "$(awk '/^NoNewPrivs/ {print $2}' <<<"$status")"
  same 2 "$(awk '/^Seccomp:/ {print $2}' <<<"$status")"
  same 0000000000000000 "$(awk '/^CapBnd/ {print $2}' <<<"$status")"
  has "$(inside "$container" sh -c 'touch /x 2>&1 || true')" "Read-only file system"
}

step_privileged_pod_on_the_node_s_network() { # core
  pod node '{"hostname": "", "linux": {"security_context": {"privileged": 1, "namespace_options": {"network": 2, "pid": 2, "ipc": 2}}}}'
  container a '{"linux": {"security_context": {"privileged": 1}}}' sleep 1005
  local kind
  for kind in net ipc pid; do same "$(readlink /proc/self/ns/$kind)" "$(namespace_of "$(pid_of "$container")" $kind)" $kind; done
  inside "$container" mount -t tmpfs x /mnt
}

step_volumes() {
  mkdir -p "$W/volume"
  echo volume >"$W/volume/file"
  pod volumes
  container a "{\"mounts\": [{\"container_path\": \"/data\", \"host_path\": \"$W/volume\"},
    {\"container_path\": \"/fixed\", \"host_path\": \"$W/volume\", \"readonly\": 1}]}" sleep 1000
  same volume "$(inside "$container" cat /data/file)"
  inside "$container" touch /data/new
  [ -e "$W/volume/new" ] || fail "not written through"
  has "$(inside "$container" sh -c 'touch /fixed/x 2>&1 || true')" "Read-only file system"
}

# hostUsers: false. The pod's containers join the user namespace of its sandbox.
user_namespace() {
  local map='[{"host_id": 300000, "container_id": 0, "length": 65536}]'
  local options="{\"pid\": 1, \"userns_options\": {\"mode\": 0, \"uids\": $map, \"gids\": $map}}"
  pod users "{\"linux\": {\"security_context\": {\"namespace_options\": $options}}}" "$1"
  container a '{}' sleep 1006
  local a=$container
  container b '{}' sleep 1007
  same "0 300000 65536" "$(inside "$a" cat /proc/self/uid_map | xargs)"
  same "0 300000 65536" "$(inside "$container" cat /proc/self/gid_map | xargs)"
  same "$(namespace_of "$(pod_pid "$pod")" user)" "$(namespace_of "$(pid_of "$a")" user)"
  same "$(namespace_of "$(pid_of "$container")" user)" "$(namespace_of "$(pid_of "$a")" user)"
  same 300000 "$(awk '/^Uid/ {print $2}' "/proc/$(pid_of "$a")/status")"
  same "0 0" "$(inside "$a" stat -c '%u %g' /bin/busybox)"
  same "" "$(inside "$a" touch /written)"
  same 1 "$(shims | wc -l)" "shims"
}

step_pod_in_a_user_namespace() { user_namespace e2e; } # core
step_pod_in_a_user_namespace_of_a_class_by_path() { user_namespace e2e-path; }

# containerd 2 asks the shim (-info) whether it can do user namespaces and id-mapped mounts, and tells the kubelet, which refuses
# hostUsers: false otherwise. It asks only where the runtime's type is io.containerd.runc.v2: hence a class by path. 1.7 does not tell.
step_runtime_class_by_path_is_known_to_do_user_namespaces() {
  local handlers
  handlers=$(cri Status | jq -c '.runtime_handlers // empty')
  [ -n "$handlers" ] || skip "this containerd does not tell"
  same 1 "$(jq -r '.[] | select(.name == "e2e-path") | .features.user_namespaces' <<<"$handlers")"
}

# CRI wraps the table of a type that it does not know into a message of its own.
step_options_of_a_runtime_class_are_read() {
  pod options null e2e-options
  container a '{}' sleep 1000
  [ -d "/run/containerd/e2e-options/k8s.io/$container" ] || fail "the state is elsewhere"
}

# --- containerd comes and goes

step_containerd_is_restarted() { # limit 120 core
  pod stays
  container a '{}' sh -c 'i=0; while :; do i=$((i + 1)); echo "tick $i"; sleep 0.1; done'
  local pid
  pid=$(pid_of "$container")
  shows "tick 2" cat "$W/logs/a.log"
  engine kill containerd
  engine start containerd
  answered() { [ "$(inside "$container" echo hello)" = hello ]; }
  soon answered
  same "$pid" "$(pid_of "$container")"
  same 1 "$(status_of "$container" .status.state)"
  local lines
  lines=$(wc -l <"$W/logs/a.log")
  more() { [ "$(wc -l <"$W/logs/a.log")" -gt $((lines + 3)) ]; }
  soon more
  cri StopContainer "{\"container_id\": \"$container\", \"timeout\": 0}"
  same 137 "$(status_of "$container" .status.exit_code)"
}

step_shim_is_killed() { # core
  pod killed
  container a '{}' sleep 1008
  local pid
  pid=$(pid_of "$container")
  kill -9 "$(parent_of "$pid")"
  ended() { [ "$(status_of "$container" .status.state)" = 2 ]; }
  soon ended
  soon [ ! -e "/proc/$pid" ]
  cri StopPodSandbox "{\"pod_sandbox_id\": \"$pod\"}"
  cri RemovePodSandbox "{\"pod_sandbox_id\": \"$pod\"}"
}

step_nothing_is_left() { # core
  after_step
  becomes "" shims
  becomes "" find "$TASKS" -mindepth 1 -maxdepth 1
  states() { find /run/containerd/cofferdam/k8s.io /run/containerd/e2e-options/k8s.io /run/containerd/runc/k8s.io -mindepth 1 -maxdepth 1 2>/dev/null || true; }
  becomes "" states
  no_mounts() { ! grep -q "$TASKS/" /proc/mounts; }
  soon no_mounts
  becomes "" find /sys/fs/cgroup -type d -path "*/$CRI_GROUP/*"
}

prepare
walk "$@"
