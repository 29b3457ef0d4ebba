# Sourced by the scripts of this folder (bash): where their cache is, and how they get what they need.
# shellcheck shell=bash disable=SC2034
#   COFFERDAM_CACHE  where everything lies that these scripts fetch or build (default ~/.cache/cofferdam)
#   MIRROR           Debian mirror for debootstrap (default: debootstrap's own)
#   SUITE            Debian suite of the testbed and the VM (default trixie)

HACK=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(dirname "$HACK")
CACHE=${COFFERDAM_CACHE:-${HOME:-/root}/.cache/cofferdam}
SUITE=${SUITE:-trixie}
export COFFERDAM_CACHE=$CACHE SUITE
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { echo "${0##*/}: $*" >&2; }
die() { say "$*"; exit 1; }

# Prints the comment at the head of the script: its usage.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

as_root() { [ "$(id -u)" = 0 ] || die "needs root"; }

# need COMMAND[:PACKAGE]...: installs, by apt, the packages of the commands that are not there. Asked twice, for what is installed may
# have another one removed: qemu-system-x86 a qemu-utils from elsewhere that does not fit it.
need() {
  local n round missing
  for round in 1 2; do
    missing=()
    for n; do command -v "${n%%:*}" >/dev/null || missing+=("${n#*:}"); done
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}" || return
  done
}

# install_packages PACKAGE...: by apt, on this machine; the package lists are fetched only when apt has none of the package.
install_packages() {
  local p stale=
  say "installs ${*}"
  for p; do apt-cache show "$p" >/dev/null 2>&1 || stale=1; done
  [ -z "$stale" ] || apt-get -q update >/dev/null || return
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >/dev/null 2>&1 && return
  # lists older than the mirror's content make the download fail
  apt-get -q update >/dev/null
  apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >/dev/null
}

# locked NAME COMMAND...: one at a time of all that use this cache.
locked() {
  local name=$1; shift
  mkdir -p "$CACHE"
  ( flock 9; "$@" 9>&- ) 9>"$CACHE/.$name.lock"
}

# suite_apt SUITE COMMAND...: apt-get or apt-cache with the package lists of another Debian suite, nothing installed.
suite_apt() {
  local suite=$1 dir=$CACHE/apt/$1 tool=$2; shift 2
  locked "apt.$suite" suite_lists "$suite" "$dir" || return
  APT_CONFIG=$dir/apt.conf "$tool" "$@"
}

# suite_lists SUITE DIR: fetches them, once. The mirror is the one debootstrap chose for the testbed's root file system.
suite_lists() {
  local suite=$1 dir=$2 root
  [ ! -e "$dir/made" ] || return 0
  root=$("$HACK/rootfs") || return
  mkdir -p "$dir"/{lists/partial,archives/partial}
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || install_packages debian-archive-keyring
  awk -v suite="$suite" '$1 == "deb" { print "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]", $2, suite, "main"
    print "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]", $2, suite, "main"; exit }' \
    "$root/etc/apt/sources.list" >"$dir/sources.list"
  cat >"$dir/apt.conf" <<F
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$dir/lists";
Dir::State::status "/dev/null";
Dir::Cache "$dir";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "root";
F
  APT_CONFIG=$dir/apt.conf apt-get -q update >/dev/null || return
  touch "$dir/made"
}
