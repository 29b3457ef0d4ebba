# Sourced: how docker and ctr are told which runtime to use, by the names of hack/testbed.
# shellcheck shell=bash

# daemon_json NAME BIN: what daemon.json says; BIN is the folder of our binaries.
daemon_json() {
  case $1 in
    runc) echo '{}' ;;
    crun) echo '{"runtimes": {"crun": {"path": "/usr/bin/crun"}}, "default-runtime": "crun"}' ;;
    cofferdam) printf '{"runtimes": {"cofferdam": {"path": "%s/cofferdam"}}, "default-runtime": "cofferdam"}\n' "$2" ;;
    cofferdam-shim)
      echo '{"runtimes": {"cofferdam": {"runtimeType": "io.containerd.cofferdam.v2"}}, "default-runtime": "cofferdam"}' ;;
    *) return 1 ;;
  esac
}

# ctr_words NAME BIN: the words that `ctr run` needs.
ctr_words() {
  case $1 in
    runc) echo "--runtime io.containerd.runc.v2" ;;
    crun) echo "--runtime io.containerd.runc.v2 --runc-binary /usr/bin/crun" ;;
    cofferdam) echo "--runtime io.containerd.runc.v2 --runc-binary $2/cofferdam" ;;
    cofferdam-shim) echo "--runtime io.containerd.cofferdam.v2" ;;
    *) return 1 ;;
  esac
}

# cri_toml NAME BIN [systemd]: containerd's config.toml with NAME as a runtime class beside its default, and the testbed's own network and sandbox
# image (hack/e2e/cri.sh makes both). Three classes: e2e is the plain one; e2e-options has options; e2e-path has containerd's own runtime
# type with our shim as its program, for what engines do for that type alone (see cri.sh). With "systemd" that is whose cgroups they are;
# our shim's plain class knows it by their paths.
cri_toml() {
  local type=io.containerd.runc.v2 options='' path='' driver=''
  [ "${3:-}" != systemd ] || driver='SystemdCgroup = true'
  case $1 in
    runc) options=$driver ;;
    crun) options='BinaryName = "/usr/bin/crun"'${driver:+$'\n        '$driver} ;;
    cofferdam) options="BinaryName = \"$2/cofferdam\""${driver:+$'\n        '$driver} ;;
    cofferdam-shim) type=io.containerd.cofferdam.v2 path="runtime_path = \"$2/containerd-shim-cofferdam-v2\"" ;;
    *) return 1 ;;
  esac
  cat <<F
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  # where oom_score_adj cannot be lowered (no CAP_SYS_RESOURCE), containerd then asks for what it has itself
  restrict_oom_score_adj = true
  sandbox_image = "docker.io/library/pause:latest"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/testbed/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.e2e]
      runtime_type = "$type"
F
  # without options there is no table of them: an empty one is a message, too
  [ -z "$options" ] || cat <<F
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.e2e.options]
        $options
F
  options=${options:-$driver}
  cat <<F
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.e2e-options]
      runtime_type = "$type"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.e2e-options.options]
        $options
        Root = "/run/containerd/e2e-options"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.e2e-path]
      runtime_type = "io.containerd.runc.v2"
      $path
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.e2e-path.options]
        $options
F
}
