#!/bin/bash
# docker.sh [REGEX]...: what every introduction to Docker tells, step by step, with the daemon's default runtime. Runs inside
# `hack/testbed run --registry` (or the VM); see walk.sh for its results.
# shellcheck disable=SC2009,SC2016,SC2317 # steps and what they hand to `soon` are called by name; what stands in single quotes is for the shell in the container
. "$(dirname "$0")/walk.sh"

R=${TESTBED_REGISTRY:-127.0.0.1:5000}
W=${TESTBED:-$PWD}/walk
mkdir -p "$W"

after_step() {
  local left
  left=$(docker ps -aq)
  # shellcheck disable=SC2086
  [ -z "$left" ] || docker rm -f -v $left
}

status_is() { [ "$(docker inspect -f '{{.State.Status}}' "$1")" = "$2" ]; }
inspect() { docker inspect -f "$2" "$1"; }
not_running() { [[ $'\n'$(ps ax -o args)$'\n' != *$'\n'"$1"$'\n'* ]]; }
# What the container's own cgroup says: cgroup_value CONTAINER V1FILE V2FILE
cgroup_value() {
  if [ "$(docker info -f '{{.CgroupVersion}}')" = 2 ]; then docker exec "$1" cat "/sys/fs/cgroup/$3"
  else docker exec "$1" cat "/sys/fs/cgroup/$2"; fi
}

# --- image and registry

step_default_runtime_is_the_one_asked_for() { # core
  case ${TESTBED_RUNTIME:-runc} in
    cofferdam*) same cofferdam "$(docker info -f '{{.DefaultRuntime}}')" ;;
    *) same "${TESTBED_RUNTIME:-runc}" "$(docker info -f '{{.DefaultRuntime}}')" ;;
  esac
}

step_push_and_pull() {
  docker tag busybox "$R/busybox:walk"
  docker push -q "$R/busybox:walk"
  docker rmi "$R/busybox:walk"
  exits 1 docker image inspect "$R/busybox:walk"
  docker pull -q "$R/busybox:walk"
  same hello "$(docker run --rm "$R/busybox:walk" echo hello)"
}

# --- run

step_run_exits_0() { exits 0 docker run --rm busybox true; }
step_run_exits_7() { exits 7 docker run --rm busybox sh -c 'exit 7'; } # core
step_run_exits_128_plus_signal() { exits 143 docker run --rm --pid host busybox sh -c 'kill -TERM $$'; }

step_run_exits_125_when_docker_refuses() {
  exits 125 docker run --rm --no-such-flag busybox true
  exits 125 docker run --rm --mount type=bind,source=/no/such/folder,target=/x busybox true
}

step_run_exits_126_when_not_executable() { # core
  exits 126 docker run --rm busybox /etc/passwd
  has "$output" "permission denied"
  exits 126 docker run --rm busybox /etc
}

step_run_exits_127_when_missing() { # core
  exits 127 docker run --rm busybox no-such-command
  has "$output" "executable file not found"
  exits 127 docker run --rm busybox /no/such/file
  has "$output" "no such file or directory"
}

step_failed_run_leaves_a_created_container_that_can_be_removed() {
  exits 127 docker run --name e2e busybox no-such-command
  same created "$(inspect e2e '{{.State.Status}}')"
  docker rm e2e
}

step_run_reports_a_script_without_interpreter() {
  docker create --name e2e busybox /script
  printf 'echo no interpreter line\n' >"$W/script"
  chmod +x "$W/script"
  docker cp "$W/script" e2e:/script
  exits 1 docker start -a e2e
  has "$output" "exec format error"
}

step_environment() {
  docker run --rm -e A=1 -e B="two words" busybox env >"$W/env"
  grep -qx A=1 "$W/env"
  grep -qx 'B=two words' "$W/env"
  grep -qx 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$W/env"
  grep -qx HOME=/root "$W/env"
  same /home "$(docker run --rm -u user busybox sh -c 'echo $HOME')"
}

step_working_folder_is_made() { same /a/b/c "$(docker run --rm -w /a/b/c busybox pwd)"; }

step_entrypoint() { same "x y" "$(docker run --rm --entrypoint echo busybox x y)"; }

step_user_by_name_and_number() { # core
  same "uid=1000(user) gid=1000(user) groups=29(audio),1000(user)" "$(docker run --rm -u user busybox id)"
  has "$(docker run --rm -u 4242:4343 busybox id)" "uid=4242 gid=4343"
  has "$(docker run --rm -u 4242 --group-add 77 busybox id)" "groups=0(root),77"
  exits 125 docker run --rm -u no-such-user busybox id
}

step_hostname_and_domainname() {
  same web "$(docker run --rm -h web busybox hostname)"
  same example.org "$(docker run --rm -h web --domainname example.org busybox cat /proc/sys/kernel/domainname)"
}

step_first_process_is_pid_1() { same 1 "$(docker run --rm busybox sh -c 'echo $$')"; }

step_no_descriptor_leaks_in() {
  same "0 1 2" "$(docker run --rm busybox sh -c 'cd /proc/self/fd; for f in 0 1 2 3 4 5 6 7 8 9 10 11 12; do
    [ -e $f ] && case $(readlink $f) in /proc/*) ;; *) printf "%s " $f ;; esac; done' | sed 's/ $//')"
}

step_stdout_and_stderr_stay_apart() {
  docker run --rm busybox sh -c 'echo out; echo err >&2' >"$W/out" 2>"$W/err"
  same out "$(cat "$W/out")"
  same err "$(cat "$W/err")"
}

step_stdin() { # core
  same hello "$(echo hello | docker run --rm -i busybox cat)"
  head -c 2000000 /dev/urandom >"$W/data"
  same "$(md5sum <"$W/data")" "$(docker run --rm -i busybox md5sum <"$W/data")"
}

step_large_output() { same 2000000 "$(docker run --rm busybox sh -c 'yes | head -c 2000000' | wc -c)"; }

step_interactive_terminal() { # core
  exits 3 pty 40x100 '# ' 'tty; echo size $(stty size)' 'size 40 100[^#]*# ' 'exit 3' -- docker run --rm -it busybox sh
  has "$output" /dev/pts/0
}

step_terminal_is_resized() {
  exits 5 pty 24x80 '# ' 'until [ "$(stty size)" = "24 80" ]; do sleep 0.1; done; echo re""ady' 'ready' 'resize 51x123' '# ' \
    'until [ "$(stty size)" = "51 123" ]; do sleep 0.1; done; exit 5' -- docker run --rm -it busybox sh
}

step_terminal_without_stdin() { has "$(docker run --rm -t busybox tty)" /dev/pts/0; }

step_detached_and_wait() {
  docker run -d --name e2e busybox sh -c 'sleep 1; exit 9'
  same 9 "$(docker wait e2e)"
  same 9 "$(inspect e2e '{{.State.ExitCode}}')"
}

step_rm_leaves_nothing() { # core
  docker run -d --name e2e busybox sleep 100
  local id pid
  id=$(inspect e2e '{{.Id}}') pid=$(inspect e2e '{{.State.Pid}}')
  docker rm -f e2e
  [ ! -e "/proc/$pid" ] || fail "process $pid is still there"
  soon sh -c "! grep -q $id /proc/mounts"
  soon sh -c "! find /sys/fs/cgroup -name '*$id*' | grep -q ."
  soon sh -c "! find /run -name '*$id*' | grep -q ."
  soon sh -c "! ps ax -o args | grep -v grep | grep -q $id"
}

# --- exec, logs, attach, and the rest of a container's life

step_exec() { # core
  docker run -d --name e2e busybox sleep 100
  same hello "$(docker exec e2e echo hello)"
  exits 5 docker exec e2e sh -c 'exit 5'
  same piped "$(echo piped | docker exec -i e2e cat)"
  same /tmp "$(docker exec -w /tmp e2e pwd)"
  same x "$(docker exec -e X=x e2e sh -c 'echo $X')"
  docker exec -d e2e touch /detached
  soon docker exec e2e test -e /detached
}

step_exec_as_user() { # core
  docker run -d --name e2e busybox sleep 100
  has "$(docker exec -u user e2e id)" "uid=1000(user) gid=1000(user)"
  has "$(docker exec -u 7:8 e2e id)" "uid=7 gid=8"
  has "$(docker exec -u 4294967 e2e id)" "uid=4294967 gid=0"
  # Docker 26 says 126 here, 28 says 1
  exits '@(1|126)' docker exec -u no-such-user e2e id
}

step_exec_on_a_terminal() { # core
  docker run -d --name e2e busybox sleep 100
  exits 4 pty 33x99 '# ' 'until [ "$(stty size)" = "33 99" ]; do sleep 0.1; done; tty' '/dev/pts/[0-9][^#]*# ' 'exit 4' -- \
    docker exec -it e2e sh
}

step_exec_of_a_missing_command() {
  docker run -d --name e2e busybox sleep 100
  # Docker 26 says 126 here, 28 says 127
  exits '12[67]' docker exec e2e no-such-command
  has "$output" "executable file not found"
  exits 126 docker exec e2e /etc/passwd
  has "$output" "permission denied"
}

step_exec_has_the_container_capabilities() { # core
  docker run -d --name e2e --cap-drop ALL --cap-add CHOWN busybox sleep 100
  same 0000000000000001 "$(docker exec e2e awk '/^CapEff/ {print $2}' /proc/self/status)"
  docker exec --privileged e2e awk '/^CapEff/ {print $2}' /proc/self/status >"$W/caps"
  [ "$(cat "$W/caps")" != 0000000000000001 ] || fail "privileged exec has no more capabilities"
}

step_exec_in_parallel() {
  docker run -d --name e2e busybox sleep 100
  local n pids=() status=0
  for n in 1 2 3 4 5 6 7 8 9 10; do
    docker exec e2e sh -c "exit $n" &
    pids+=($!)
  done
  for n in 1 2 3 4 5 6 7 8 9 10; do
    status=0
    wait "${pids[n - 1]}" || status=$?
    same $n $status
  done
}

step_exec_ends_with_its_container() {
  docker run -d --name e2e busybox sleep 100
  docker exec e2e sleep 90 &
  local exec=$! status=0
  shows 'sleep 90' docker exec e2e ps
  docker kill e2e
  wait $exec || status=$?
  same 137 $status
}

step_exec_is_refused_when_stopped() {
  docker create --name e2e busybox sleep 100
  exits 1 docker exec e2e true
  has "$output" "is not running"
}

step_logs() {
  # dockerd reads the two streams side by side: what is to be the last line has to come later
  docker run --name e2e busybox sh -c "echo one; echo two >&2; sleep $E2E_SLOWNESS; echo three"
  same "$(printf 'one\nthree')" "$(docker logs e2e 2>/dev/null)"
  same two "$(docker logs e2e 2>&1 >/dev/null)"
  same three "$(docker logs --tail 1 e2e 2>/dev/null)"
  docker run -d --name e2e2 busybox sh -c 'for i in 1 2 3; do echo $i; sleep 0.3; done'
  same "1 2 3" "$(docker logs -f e2e2 | xargs)"
}

step_attach() {
  docker run -d -i --name e2e busybox sh -c 'read line; echo got $line; exit 6'
  local status=0
  output=$({ echo hello; a_while; } | docker attach e2e) || status=$?
  same 6 $status
  same "got hello" "$output"
}

step_attach_terminal_and_detach() {
  docker run -dit --name e2e busybox sh
  exits 1 pty 24x80 '# ' 'echo he""llo' 'hello[^#]*# ' $'\x10\x11' -- docker attach e2e
  has "$output" "read escape sequence"
  status_is e2e running
}

step_start_again() {
  docker run --name e2e busybox sh -c 'echo x >>/count; wc -l </count'
  same 2 "$(docker start -a e2e)"
  same 3 "$(docker start -a e2e)"
}

step_stats() { # core
  docker run -d --name e2e busybox sleep 100
  local json
  json=$(docker stats --no-stream --format '{{json .}}' e2e)
  same 1 "$(jq -r .PIDs <<<"$json")"
  [[ $(jq -r .MemUsage <<<"$json") =~ ^[0-9.]+[KM]iB\ /\ [0-9.]+GiB$ ]] || fail "memory: $json"
  [[ $(jq -r .MemUsage <<<"$json") != 0B* ]] || fail "no memory: $json"
  [[ $(jq -r .CPUPerc <<<"$json") =~ ^[0-9.]+%$ ]] || fail "cpu: $json"
}

step_top() { # core
  docker run -d --name e2e busybox sleep 100
  docker exec -d e2e sleep 50
  shows "sleep 50" docker top e2e
  has "$(docker top e2e)" "sleep 100"
  same "sleep 100" "$(docker top e2e -o pid,args | awk 'NR == 2 {print $2, $3}')"
}

step_pause_and_unpause() { # core
  docker run -d --name e2e busybox sh -c 'while :; do date +%s >/tmp/now; sleep 0.1; done'
  soon docker exec e2e test -s /tmp/now
  docker pause e2e
  status_is e2e paused
  exits 1 docker exec e2e true
  has "$output" "is paused"
  docker cp e2e:/tmp/now "$W/before"
  sleep 1.5
  docker cp e2e:/tmp/now "$W/after"
  same "$(cat "$W/before")" "$(cat "$W/after")" "it went on while paused"
  docker unpause e2e
  status_is e2e running
  docker exec e2e true
}

step_paused_container_can_be_killed() { # core
  docker run -d --name e2e busybox sleep 100
  docker pause e2e
  docker kill e2e
  soon status_is e2e exited
  same 137 "$(inspect e2e '{{.State.ExitCode}}')"
}

step_paused_container_can_be_removed() {
  docker run -d --name e2e busybox sleep 100
  docker pause e2e
  docker rm -f e2e
}

step_update_memory_and_cpus() { # core
  docker run -d --name e2e -m 64m --memory-swap 64m busybox sleep 100
  same 67108864 "$(cgroup_value e2e memory/memory.limit_in_bytes memory.max)"
  docker update -m 96m --memory-swap 96m e2e
  same 100663296 "$(cgroup_value e2e memory/memory.limit_in_bytes memory.max)"
  docker update -m 48m --memory-swap 48m e2e
  same 50331648 "$(cgroup_value e2e memory/memory.limit_in_bytes memory.max)"
  docker update --cpus 0.5 e2e
  if [ "$(docker info -f '{{.CgroupVersion}}')" = 2 ]; then
    same "50000 100000" "$(docker exec e2e cat /sys/fs/cgroup/cpu.max)"
  else
    same 50000 "$(docker exec e2e cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us)"
  fi
  docker update --pids-limit 33 e2e
  same 33 "$(cgroup_value e2e pids/pids.max pids.max)"
}

step_limits() { # core
  docker run -d --name e2e -m 50m --memory-reservation 20m --cpus 1.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 20 busybox sleep 100
  same 52428800 "$(cgroup_value e2e memory/memory.limit_in_bytes memory.max)"
  same 20971520 "$(cgroup_value e2e memory/memory.soft_limit_in_bytes memory.low)"
  same 0 "$(cgroup_value e2e cpuset/cpuset.cpus cpuset.cpus)"
  same 20 "$(cgroup_value e2e pids/pids.max pids.max)"
  same 0 "$(docker exec e2e awk '/^Cpus_allowed_list/ {print $2}' /proc/self/status)"
}

step_pids_limit_is_enforced() { # core
  exits 2 docker run --rm --pids-limit 6 busybox sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait'
  has "$output" "can't fork"
}

step_out_of_memory() { # core
  exits 137 docker run --name e2e -m 16m --memory-swap 16m busybox tail /dev/zero
  same true "$(inspect e2e '{{.State.OOMKilled}}')"
}

step_copy_both_ways() {
  docker run -d --name e2e busybox sleep 100
  echo hello >"$W/file"
  docker cp "$W/file" e2e:/tmp/file
  same hello "$(docker exec e2e cat /tmp/file)"
  docker exec e2e sh -c 'mkdir /tmp/d; echo x >/tmp/d/x; ln -s x /tmp/d/link'
  rm -rf "$W/d"
  docker cp e2e:/tmp/d "$W/d"
  same x "$(cat "$W/d/link")"
  docker stop -t 0 e2e
  docker cp e2e:/tmp/file "$W/file2"
  same hello "$(cat "$W/file2")"
}

step_diff_commit_export() {
  docker run --name e2e busybox touch /tmp/new
  has "$(docker diff e2e)" "A /tmp/new"
  docker commit e2e walk/committed
  docker run --rm walk/committed test -e /tmp/new
  docker rmi walk/committed
  docker export e2e | tar -tf - >"$W/list"
  grep -qx tmp/new "$W/list"
}

step_rename() {
  docker run -d --name e2e busybox sleep 100
  docker rename e2e e2e-new
  docker exec e2e-new true
}

step_events_come_in_order() {
  local since
  since=$(date +%s.%N)
  docker run --rm --name e2e busybox true
  actions() { docker events --since "$since" --until "$(date +%s.%N)" -f container=e2e --format '{{.Action}}' | xargs; }
  becomes "create attach start die destroy" actions
}

step_restart_on_failure() { # core
  docker run -d --name e2e --restart on-failure:2 busybox sh -c 'exit 3'
  becomes "2 exited" inspect e2e '{{.RestartCount}} {{.State.Status}}'
  same 3 "$(inspect e2e '{{.State.ExitCode}}')"
}

step_restart_always() {
  docker run -d --name e2e --restart always busybox sh -c 'sleep 0.2; exit 0'
  becomes true inspect e2e '{{ge .RestartCount 2}}'
  docker stop -t 0 e2e
  status_is e2e exited
}

step_restart_command() {
  docker run -d --name e2e busybox sleep 100
  local before
  before=$(inspect e2e '{{.State.Pid}}')
  docker restart -t 0 e2e
  status_is e2e running
  [ "$before" != "$(inspect e2e '{{.State.Pid}}')" ] || fail "same process"
}

step_healthcheck() {
  docker run -d --name e2e --health-cmd 'test -e /tmp/well' --health-interval 500ms --health-retries 2 busybox sleep 100
  becomes unhealthy inspect e2e '{{.State.Health.Status}}'
  docker exec e2e touch /tmp/well
  becomes healthy inspect e2e '{{.State.Health.Status}}'
}

step_stop_sends_sigterm() { # core
  docker run -d --name e2e busybox sh -c 'trap "exit 3" TERM; echo ready; while :; do sleep 0.1; done'
  shows ready docker logs e2e
  docker stop -t 20 e2e
  same 3 "$(inspect e2e '{{.State.ExitCode}}')"
}

step_stop_ends_with_sigkill() {
  docker run -d --name e2e busybox sh -c 'trap "" TERM; while :; do sleep 0.1; done'
  docker stop -t 1 e2e
  same 137 "$(inspect e2e '{{.State.ExitCode}}')"
}

step_stop_signal() {
  docker run -d --name e2e --stop-signal USR1 busybox sh -c 'trap "exit 4" USR1; echo ready; while :; do sleep 0.1; done'
  shows ready docker logs e2e
  docker stop -t 20 e2e
  same 4 "$(inspect e2e '{{.State.ExitCode}}')"
}

step_kill_with_a_signal() {
  docker run -d --name e2e busybox sh -c 'trap "echo usr1" USR1; echo ready; while :; do sleep 0.1; done'
  shows ready docker logs e2e
  docker kill -s USR1 e2e
  shows usr1 docker logs e2e
  docker kill -s 9 e2e
  soon status_is e2e exited
  exits 1 docker kill e2e
  has "$output" "is not running"
}

step_init_reaps() {
  docker run -d --name e2e --init busybox sh -c 'sh -c "sleep 0.1 & exit 0"; sleep 100'
  has "$(docker exec e2e cat /proc/1/cmdline | tr '\0' ' ')" docker-init
  sleep 0.5 # the orphan has ended by now
  lacks "$(docker exec e2e ps -o stat,args)" Z
}

# --- file systems

step_volume_keeps_its_content() {
  docker volume create walk-volume
  docker run --rm -v walk-volume:/data busybox sh -c 'echo kept >/data/file'
  same kept "$(docker run --rm -v walk-volume:/data busybox cat /data/file)"
  docker volume rm walk-volume
}

step_volumes_from() {
  docker run -d --name e2e -v /shared busybox sh -c 'echo x >/shared/x; sleep 100'
  soon docker exec e2e test -s /shared/x
  same x "$(docker run --rm --volumes-from e2e busybox cat /shared/x)"
}

step_bind_mount() { # core
  mkdir -p "$W/bind"
  echo outside >"$W/bind/file"
  same outside "$(docker run --rm -v "$W/bind:/mnt" busybox cat /mnt/file)"
  docker run --rm -v "$W/bind:/mnt" busybox sh -c 'echo inside >/mnt/file'
  same inside "$(cat "$W/bind/file")"
  exits 1 docker run --rm -v "$W/bind:/mnt:ro" busybox touch /mnt/file
  has "$output" "Read-only file system"
  same inside "$(docker run --rm -v "$W/bind/file:/one-file" busybox cat /one-file)"
}

step_bind_propagation() {
  mkdir -p "$W/prop"
  mountpoint -q "$W/prop" || { mount -t tmpfs tmpfs "$W/prop"; mount --make-shared "$W/prop"; }
  mkdir -p "$W/prop/late"
  docker run -d --name e2e -v "$W/prop:/prop:rslave" busybox sleep 100
  mount -t tmpfs tmpfs "$W/prop/late"
  echo late >"$W/prop/late/file"
  same late "$(docker exec e2e cat /prop/late/file)"
  docker rm -f e2e
  umount "$W/prop/late" "$W/prop"
}

step_tmpfs() { # core
  has "$(docker run --rm --tmpfs /scratch:size=1m,mode=700 busybox sh -c 'grep /scratch /proc/mounts; stat -c %a /scratch')" "size=1024k"
  exits 1 docker run --rm --tmpfs /scratch:size=64k busybox dd if=/dev/zero of=/scratch/x bs=1k count=100
  has "$output" "No space left"
}

step_shm_size() { has "$(docker run --rm --shm-size 8m busybox df -k /dev/shm)" 8192; }

step_read_only_root() { # core
  exits 1 docker run --rm --read-only busybox touch /x
  has "$output" "Read-only file system"
  docker run --rm --read-only --tmpfs /tmp busybox touch /tmp/x
  docker run --rm --read-only busybox sh -c 'echo x >/dev/shm/x'
}

step_mount_over_a_symlink_stays_inside() {
  docker build -q -t walk/link - <<'F' >/dev/null
FROM busybox
RUN ln -s /etc/passwd /link && ln -s /tmp /dirlink
F
  mkdir -p "$W/bind"
  echo mounted >"$W/bind/other"
  same mounted "$(docker run --rm -v "$W/bind:/dirlink" walk/link cat /tmp/other)"
  docker rmi walk/link
}

step_masked_and_readonly_paths() { # core
  same 0 "$(docker run --rm busybox sh -c 'cat /proc/kcore /proc/timer_list 2>/dev/null | wc -c')"
  exits 1 docker run --rm busybox sh -c 'echo 1 >/proc/sys/kernel/panic'
  # cgroup v1: a controller's folder (runc leaves the tmpfs above it writable)
  exits 1 docker run --rm busybox sh -c 'cd /sys/fs/cgroup; [ ! -d memory ] || cd memory; mkdir x'
  has "$output" "Read-only file system"
  same 0 "$(docker run --rm busybox sh -c 'ls -A /sys/firmware | wc -l')"
}

# --- network

step_publish_a_port() { # core
  docker run -d --name e2e -p 18080:80 busybox sh -c 'echo published >/tmp/index.html; exec httpd -f -p 80 -h /tmp'
  soon curl -sf http://127.0.0.1:18080/
  same published "$(curl -sf http://127.0.0.1:18080/)"
  local address
  address=$(ip -4 -o addr show | awk '$2 ~ /^e/ {sub("/.*", "", $4); print $4; exit}')
  same published "$(curl -sf "http://$address:18080/")"
  has "$(docker port e2e)" "80/tcp -> 0.0.0.0:18080"
}

step_network_none() { same lo "$(docker run --rm --network none busybox ls /sys/class/net | grep -vE '^(tunl|sit|ip6|gre|erspan|bonding_masters)' | xargs)"; }
step_loopback_is_up() { docker run --rm --network none busybox ping -c 1 -W 2 127.0.0.1; }

step_network_host() { # core
  same "$(readlink /proc/self/ns/net)" "$(docker run --rm --network host busybox readlink /proc/self/ns/net)"
}

step_network_of_a_container() {
  docker run -d --name e2e busybox sh -c 'echo x >/tmp/index.html; exec httpd -f -p 8000 -h /tmp'
  soon docker run --rm --network container:e2e busybox wget -qO- http://127.0.0.1:8000/
  same "$(docker exec e2e hostname)" "$(docker run --rm --network container:e2e busybox hostname)"
}

step_network_of_our_own_has_names() {
  docker network create walk-net
  docker run -d --name e2e --network walk-net --network-alias web busybox sh -c 'echo by name >/tmp/index.html; exec httpd -f -p 80 -h /tmp'
  soon docker run --rm --network walk-net busybox wget -qO- http://web/
  same "by name" "$(docker run --rm --network walk-net busybox wget -qO- http://e2e/)"
  docker rm -f e2e
  docker network rm walk-net
}

step_network_is_connected_later() {
  docker network create walk-net2
  docker run -d --name e2e busybox sleep 100
  docker network connect walk-net2 e2e
  has "$(docker exec e2e ip link)" eth1
  docker network disconnect walk-net2 e2e
  lacks "$(docker exec e2e ip link)" eth1
  docker network rm walk-net2
}

step_extra_hosts_and_dns() {
  has "$(docker run --rm --add-host db:10.1.2.3 busybox cat /etc/hosts)" 10.1.2.3
  has "$(docker run --rm --dns 10.9.8.7 busybox cat /etc/resolv.conf)" 10.9.8.7
}

# --- namespaces

step_pid_host() { [ "$(docker run --rm --pid host busybox sh -c 'echo $$')" != 1 ] || fail "pid 1"; }

step_pid_of_a_container() {
  docker run -d --name e2e busybox sleep 99
  has "$(docker run --rm --pid container:e2e busybox ps -o args)" "sleep 99"
}

step_pid_host_ends_all_its_processes() { # core
  docker run -d --name e2e --pid host busybox sh -c 'sleep 4321 & sleep 4322'
  shows "sleep 4321" ps ax -o args
  docker rm -f e2e
  soon not_running "sleep 4321"
}

step_ipc_modes() {
  same "$(readlink /proc/self/ns/ipc)" "$(docker run --rm --ipc host busybox readlink /proc/self/ns/ipc)"
  docker run -d --name e2e --ipc shareable busybox sh -c 'echo x >/dev/shm/x; sleep 100'
  soon docker exec e2e test -s /dev/shm/x
  same x "$(docker run --rm --ipc container:e2e busybox cat /dev/shm/x)"
  docker run --rm --ipc none busybox sh -c '! grep -q " /dev/shm " /proc/mounts'
}

step_uts_host() { same "$(hostname)" "$(docker run --rm --uts host busybox hostname)"; }

step_cgroup_namespace_modes() { # core
  same "$(readlink /proc/self/ns/cgroup)" "$(docker run --rm --cgroupns host busybox readlink /proc/self/ns/cgroup)"
  [ "$(readlink /proc/self/ns/cgroup)" != "$(docker run --rm --cgroupns private busybox readlink /proc/self/ns/cgroup)" ] ||
    fail "not private"
  has "$(docker run --rm --cgroupns private busybox cat /proc/self/cgroup)" ":/"
}

# --- security

caps() { docker run --rm "$@" busybox awk '/^CapEff/ {print $2}' /proc/self/status; }

step_capabilities() { # core
  same 00000000a80425fb "$(caps)"
  same 0000000000000000 "$(caps --cap-drop ALL)"
  same 0000000000001000 "$(caps --cap-drop ALL --cap-add NET_ADMIN)"
  same 00000000a80425fa "$(caps --cap-drop CHOWN)"
  same 0000000000000000 "$(caps -u user)"
  exits 1 docker run --rm --cap-drop CHOWN busybox chown user /tmp
  exits 0 docker run --rm busybox chown user /tmp
}

step_inheritable_capabilities_are_empty() {
  same 0000000000000000 "$(docker run --rm busybox awk '/^CapInh/ {print $2}' /proc/self/status)"
}

step_seccomp_default_denies() { # core
  same 2 "$(docker run --rm busybox awk '/^Seccomp:/ {print $2}' /proc/self/status)"
  exits 1 docker run --rm busybox unshare -U true
  has "$output" "Operation not permitted"
}

step_seccomp_unconfined() {
  same 0 "$(docker run --rm --security-opt seccomp=unconfined busybox awk '/^Seccomp:/ {print $2}' /proc/self/status)"
}

step_seccomp_profile() {
  cat >"$W/profile.json" <<'F'
{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}
F
  exits 1 docker run --rm --security-opt seccomp="$W/profile.json" busybox mkdir /x
  has "$output" "Operation not supported"
  exits 0 docker run --rm --security-opt seccomp="$W/profile.json" busybox touch /x
}

step_no_new_privileges() { # core
  same 0 "$(docker run --rm busybox awk '/^NoNewPrivs/ {print $2}' /proc/self/status)"
  same 1 "$(docker run --rm --security-opt no-new-privileges busybox awk '/^NoNewPrivs/ {print $2}' /proc/self/status)"
}

step_apparmor() { # core
  has_output apparmor docker info -f '{{.SecurityOptions}}' || skip "no AppArmor here"
  has "$(docker run --rm busybox cat /proc/self/attr/current)" "docker-default"
  has "$(docker run --rm --security-opt apparmor=unconfined busybox cat /proc/self/attr/current)" unconfined
}

step_devices() {
  exits 0 docker run --rm --device /dev/null:/dev/mine busybox sh -c 'echo x >/dev/mine && test -c /dev/mine'
  has "$(docker run --rm --device /dev/zero:/dev/a/b busybox ls -l /dev/a/b)" "1,   5"
}

step_device_is_read_only() { # core
  [ -e /dev/kmsg ] || skip "no /dev/kmsg"
  exits 1 docker run --rm --device /dev/kmsg:/dev/kmsg:r busybox sh -c 'echo x >/dev/kmsg'
  has "$output" "not permitted"
}

step_device_rule() { # core
  [ -e /dev/loop0 ] || skip "no /dev/loop0"
  exits 1 docker run --rm busybox sh -c 'mknod /x b 7 0 && exec 3</x'
  has "$output" "Operation not permitted"
  exits 0 docker run --rm --device-cgroup-rule 'b 7:0 rm' busybox sh -c 'mknod /x b 7 0 && exec 3</x'
  exits 1 docker run --rm --device-cgroup-rule 'b 7:0 rm' busybox sh -c 'mknod /x b 7 0 && exec 3>/x'
}

step_standard_devices() {
  docker run --rm busybox sh -c 'for d in null zero full tty random urandom ptmx fd stdin stdout stderr; do [ -e /dev/$d ] || [ -L /dev/$d ] || exit 1; done
    echo x >/dev/null; head -c 4 /dev/zero | wc -c | grep -qx 4; head -c 4 /dev/urandom | wc -c | grep -qx 4'
}

step_ulimits() {
  same 512 "$(docker run --rm --ulimit nofile=512:1024 busybox sh -c 'ulimit -Sn')"
  same 1024 "$(docker run --rm --ulimit nofile=512:1024 busybox sh -c 'ulimit -Hn')"
  same 0 "$(docker run --rm --ulimit core=0 busybox sh -c 'ulimit -c')"
}

step_sysctl() { # core
  same 1234 "$(docker run --rm --sysctl net.ipv4.ip_local_port_range='1234 5678' busybox awk '{print $1}' /proc/sys/net/ipv4/ip_local_port_range)"
  same 4096 "$(docker run --rm --sysctl kernel.msgmax=4096 busybox cat /proc/sys/kernel/msgmax)"
}

step_oom_score() { same 500 "$(docker run --rm --oom-score-adj 500 busybox cat /proc/self/oom_score_adj)"; }

step_privileged() { # core
  exits 0 docker run --rm --privileged busybox sh -c 'mount -t tmpfs x /mnt && touch /mnt/x && [ -e /dev/loop-control -o -e /dev/kmsg ]'
  exits 0 docker run --rm --privileged busybox sh -c 'mount | grep -E " /sys .*rw"'
  same 0 "$(docker run --rm --privileged busybox awk '/^Seccomp:/ {print $2}' /proc/self/status)"
}

# --- build

dockerfile() {
  mkdir -p "$W/build"
  echo copied >"$W/build/file"
  cat >"$W/build/Dockerfile" <<'F'
FROM busybox
ENV GREETING=hello
WORKDIR /work
COPY file ./
RUN echo "$GREETING from $(pwd)" >made && [ "$(cat file)" = copied ]
RUN ["sh", "-c", "id -u >uid"]
USER user
RUN id -u >/tmp/uid
HEALTHCHECK --interval=500ms CMD test -e /work/made
CMD ["cat", "made"]
F
}

built() {
  same "hello from /work" "$(docker run --rm walk/built)"
  same 0 "$(docker run --rm walk/built cat uid)"
  same 1000 "$(docker run --rm walk/built cat /tmp/uid)"
  docker rmi walk/built
}

step_build_legacy() {
  dockerfile
  DOCKER_BUILDKIT=0 docker build --no-cache -t walk/built "$W/build"
  built
}

step_build_legacy_reports_a_failing_step() {
  printf 'FROM busybox\nRUN exit 42\n' >"$W/Dockerfile"
  DOCKER_BUILDKIT=0 exits 42 docker build --no-cache -f "$W/Dockerfile" "$W/build"
  has "$output" "returned a non-zero code: 42"
}

step_build_with_buildkit() { # limit 120 core
  dockerfile
  DOCKER_BUILDKIT=1 docker build --no-cache -t walk/built "$W/build"
  built
}

step_buildkit_mounts() { # limit 120
  cat >"$W/Dockerfile" <<'F'
FROM busybox
RUN --mount=type=cache,target=/cache echo x >>/cache/x
RUN --mount=type=secret,id=word [ "$(cat /run/secrets/word)" = swordfish ]
RUN --mount=type=tmpfs,target=/t touch /t/x
RUN --mount=type=bind,source=file,target=/file [ "$(cat /file)" = copied ]
RUN --network=none ! ip link show eth0
F
  dockerfile
  echo swordfish >"$W/word"
  DOCKER_BUILDKIT=1 docker build --no-cache --secret id=word,src="$W/word" -f "$W/Dockerfile" "$W/build"
}

# dockerd's own BuildKit runs `runc`, whatever the default runtime is, unless told otherwise.
step_buildkit_with_the_runtime_asked_for() { # limit 120
  local runtime
  case ${TESTBED_RUNTIME:-runc} in
    cofferdam*) runtime=$(docker info -f '{{.Runtimes.cofferdam.Path}}'); [ -x "$runtime" ] || runtime=$(command -v cofferdam) ;;
    *) runtime=$(command -v "${TESTBED_RUNTIME:-runc}") ;;
  esac
  printf '#!/bin/sh\necho "$@" >>%q\nexec %q "$@"\n' "$W/buildkit-calls" "$runtime" >"$W/buildkit-runtime"
  chmod +x "$W/buildkit-runtime"
  DOCKER_BUILDKIT_RUNC_COMMAND=$W/buildkit-runtime engine start dockerd-buildkit
  local DOCKER_HOST=unix:///run/docker-buildkit.sock
  export DOCKER_HOST
  docker load -q -i "${TESTBED_IMAGE:-/var/lib/busybox-image.tar}"
  printf 'FROM busybox\nRUN echo built >/result\n' | DOCKER_BUILDKIT=1 docker build -q --network none -t walk/asked -
  same built "$(docker run --rm walk/asked cat /result)"
  grep -q ' run ' "$W/buildkit-calls"
  engine stop dockerd-buildkit
}

step_buildkit_reports_a_failing_step() {
  printf 'FROM busybox\nRUN exit 42\n' >"$W/Dockerfile"
  mkdir -p "$W/build"
  DOCKER_BUILDKIT=1 exits 1 docker build --no-cache -f "$W/Dockerfile" "$W/build"
  has "$output" "exit code: 42"
}

step_push_what_was_built() {
  printf 'FROM busybox\nRUN echo pushed >/what\n' | docker build -q -t "$R/walk/pushed" -
  docker push -q "$R/walk/pushed"
  docker rmi "$R/walk/pushed"
  same pushed "$(docker run --rm "$R/walk/pushed" cat /what)"
  docker rmi "$R/walk/pushed"
}

# --- compose, swarm

compose() { if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi; }

step_compose() { # limit 120
  mkdir -p "$W/compose"
  cat >"$W/compose/compose.yaml" <<'F'
services:
  web:
    image: busybox
    command: sh -c 'echo composed >/tmp/index.html; exec httpd -f -p 80 -h /tmp'
    healthcheck: {test: wget -qO- http://127.0.0.1/, interval: 500ms, retries: 20}
    stop_grace_period: 0s
  client:
    image: busybox
    depends_on: {web: {condition: service_healthy}}
    command: sh -c 'wget -qO- http://web/; sleep 100'
    environment: {WHO: client}
    volumes: [data:/data]
    stop_grace_period: 0s
volumes: {data: {}}
F
  cd "$W/compose"
  compose up -d
  shows composed docker logs compose-client-1
  same client "$(compose exec -T client sh -c 'echo $WHO')"
  has "$(compose ps)" web
  compose down -v
  same "" "$(docker ps -aq)"
}

step_swarm_service() { # limit 180 core
  local address
  address=$(ip -4 -o addr show | awk '$2 ~ /^e/ {sub("/.*", "", $4); print $4; exit}')
  docker tag busybox "$R/busybox:swarm"
  docker push -q "$R/busybox:swarm"
  docker swarm init --advertise-addr "$address" >/dev/null
  docker service create -d --name walk --replicas 2 --stop-grace-period 0s --no-resolve-image "$R/busybox:swarm" sleep 1000
  running() { docker service ps walk -f desired-state=running --format '{{.CurrentState}}' | grep -c ^Running; }
  replaced() { docker service ps walk --format '{{.DesiredState}}' | grep -c Shutdown; }
  tasks() { docker ps -q -f label=com.docker.swarm.service.name=walk; }
  becomes 2 running
  docker service scale -d walk=3
  becomes 3 running
  # a task that dies is replaced
  local dead
  dead=$(tasks | head -n 1)
  docker kill "$dead"
  becomes 1 replaced
  becomes 3 running
  [[ $(tasks) != *$dead* ]] || fail "it still counts as running"
  docker service rm walk
  becomes "" tasks
  docker swarm leave --force
}

# --- daemons come and go

step_containers_in_parallel() { # limit 180
  local n pids=() status
  for n in $(seq 20); do
    docker run --rm --network none busybox sh -c "exit $n" &
    pids+=($!)
  done
  for n in $(seq 20); do
    status=0
    wait "${pids[n - 1]}" || status=$?
    same "$n" $status
  done
}

step_shim_is_killed() { # core
  docker run -d --name e2e busybox sleep 100
  local id pid shim
  id=$(inspect e2e '{{.Id}}') pid=$(inspect e2e '{{.State.Pid}}')
  shim=$(awk '/^PPid/ {print $2}' "/proc/$pid/status")
  has "$(tr '\0' ' ' <"/proc/$shim/cmdline")" "$id"
  kill -9 "$shim"
  soon status_is e2e exited
  soon sh -c "! [ -e /proc/$pid ]"
  docker start e2e
  docker exec e2e true
}

step_containerd_is_restarted() { # limit 120 core
  docker run -d --name e2e busybox sh -c 'i=0; while :; do i=$((i + 1)); echo $i; sleep 0.1; done'
  local pid
  pid=$(inspect e2e '{{.State.Pid}}')
  engine kill containerd
  sleep 1
  engine start containerd
  soon docker exec e2e true
  same "$pid" "$(inspect e2e '{{.State.Pid}}')"
  # the output goes on: no gap, no broken pipe
  local before
  before=$(docker logs --tail 1 e2e)
  soon sh -c "[ \$(docker logs --tail 1 e2e) -gt $((before + 5)) ]"
  docker stop -t 0 e2e
  status_is e2e exited
  docker logs e2e >"$W/out"
  same "$(tail -n 1 "$W/out")" "$(wc -l <"$W/out")" "lines and the last number"
}

step_daemon_restart_starts_them_again() { # limit 120
  docker run -d --name e2e --stop-timeout 0 --restart always busybox sleep 100
  docker run -d --name e2e2 --stop-timeout 0 busybox sleep 100
  engine restart dockerd
  soon status_is e2e running
  status_is e2e2 exited
}

step_live_restore() { # limit 180 core
  engine start dockerd-live --live-restore
  local DOCKER_HOST=unix:///run/docker-live.sock pid
  export DOCKER_HOST
  docker load -q -i "${TESTBED_IMAGE:-/var/lib/busybox-image.tar}"
  docker run -d --network none --name e2e busybox sh -c 'echo before; until [ -e /tmp/go ]; do sleep 0.1; done; echo after; sleep 100'
  docker run -d --network none --name e2e-ends busybox sh -c 'sleep 2; exit 8'
  pid=$(inspect e2e '{{.State.Pid}}')
  engine kill dockerd-live
  sleep 2
  [ -e "/proc/$pid" ] || fail "the container ended with the daemon"
  engine start dockerd-live --live-restore
  status_is e2e running
  same "$pid" "$(inspect e2e '{{.State.Pid}}')"
  soon status_is e2e-ends exited
  same 8 "$(inspect e2e-ends '{{.State.ExitCode}}')" "the exit that happened while the daemon was away"
  docker exec e2e touch /tmp/go
  shows after docker logs e2e
  docker stop -t 0 e2e
  same 137 "$(inspect e2e '{{.State.ExitCode}}')"
  docker rm e2e e2e-ends
  engine stop dockerd-live
}

step_user_namespace_remap() { # limit 180 core
  grep -q ^dockremap: /etc/subuid || { useradd -r -s /usr/sbin/nologin dockremap
    echo dockremap:300000:65536 >>/etc/subuid; echo dockremap:300000:65536 >>/etc/subgid; }
  engine start dockerd-remap --userns-remap dockremap
  local DOCKER_HOST=unix:///run/docker-remap.sock
  export DOCKER_HOST
  docker load -q -i "${TESTBED_IMAGE:-/var/lib/busybox-image.tar}"
  same "0 300000 65536" "$(docker run --rm busybox cat /proc/self/uid_map | xargs)"
  exits 7 docker run --rm busybox sh -c 'exit 7'
  same opened "$(docker run --rm busybox sh -c 'echo opened >/dev/stdout')"
  docker run -d --name e2e -v /data busybox sh -c 'touch /data/x; sleep 100'
  same 300000 "$(awk '/^Uid/ {print $2}' "/proc/$(inspect e2e '{{.State.Pid}}')/status")"
  same 0 "$(docker exec e2e id -u)"
  exits 6 pty 24x80 '# ' 'echo te""rminal' 'terminal[^#]*# ' 'exit 6' -- docker exec -it e2e sh
  soon docker exec e2e test -e /data/x
  same "$(readlink /proc/self/ns/user)" "$(docker run --rm --userns host busybox readlink /proc/self/ns/user)"
  exits 0 docker run --rm -p 18090:80 busybox true
  docker rm -f -v e2e
  printf 'FROM busybox\nRUN id -u >/uid\n' | DOCKER_BUILDKIT=0 docker build -q -t walk/remapped -
  same 0 "$(docker run --rm walk/remapped cat /uid)"
  engine stop dockerd-remap
}

step_checkpoint() {
  command -v criu >/dev/null || skip "no criu"
  criu check >/dev/null 2>&1 || skip "criu check fails on this kernel"
  docker run -d --name e2e --network none --security-opt seccomp=unconfined busybox sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done'
  shows 5 docker logs e2e
  docker checkpoint create e2e one
  # dockerd tells no shim but containerd's own that the container shall end
  case ${TESTBED_RUNTIME:-} in cofferdam-shim) status_is e2e running ;; *) status_is e2e exited ;; esac
  has "$(docker checkpoint ls e2e)" one
}

step_nothing_is_left() { # core
  after_step
  shims() { ps ax -o args | grep -v grep | grep -E 'containerd-shim-.*-namespace moby' || true; }
  becomes "" shims
  local folder
  for folder in /run/containerd/io.containerd.runtime.v2.task/moby /run/docker/runtime-*/moby /run/containerd/cofferdam/moby; do
    same "" "$(ls "$folder" 2>/dev/null || true)" "what is in $folder"
  done
}

walk "$@"
