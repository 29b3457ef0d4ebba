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
