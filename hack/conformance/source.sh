# Sourced: Debian source packages, and a place to build them in.
# shellcheck shell=bash

# source_package SUITE PACKAGE DIR: unpacks the upstream source of Debian's source package in DIR, Debian's patches applied. Its
# archives are checked against the suite's signed index one by one: a mirror may lack the .dsc, which nothing here needs.
source_package() {
  local suite=$1 package=$2 dir=$3 download=$CACHE/conformance/download archives uri file sum patch
  [ ! -e "$dir/.unpacked" ] || return 0
  mkdir -p "$download"
  archives=$(suite_apt "$suite" apt-get source --print-uris "$package" | grep "^'") || return
  rm -rf "$dir"; mkdir -p "$dir"
  while read -r uri file _ sum; do
    case $file in *.dsc | *.asc) continue ;; esac
    [ -e "$download/$file" ] || suite_apt "$suite" /usr/lib/apt/apt-helper download-file "${uri//\'/}" "$download/$file" "$sum" >/dev/null ||
      return
    case $file in
      *.orig.tar.*) tar -C "$dir" --strip-components=1 -xf "$download/$file" || return ;;
      *.debian.tar.*) tar -C "$dir" -xf "$download/$file" || return ;;
    esac
  done <<<"$archives"
  if [ -e "$dir/debian/patches/series" ]; then
    need patch
    while read -r patch; do
      case $patch in '' | '#'*) continue ;; esac
      patch -d "$dir" -p1 -s -i "$dir/debian/patches/$patch" || return
    done <"$dir/debian/patches/series"
  fi
  touch "$dir/.unpacked"
}

# in_builder SUITE NAME DIR CMD...: runs CMD in the suite's root file system, with a layer NAME of its own in the cache (what apt
# installs stays in it); DIR is visible at its own path.
in_builder() {
  local suite=$1 name=$2 dir=$3 root; shift 3
  root=$("$HACK/rootfs" "$suite") || return
  "$HACK/enter" -o "$CACHE/conformance/$name" -b "$dir" "$root" env DEBIAN_FRONTEND=noninteractive "$@"
}

# runtime_path NAME|FILE: the absolute path of a runtime: a file, or the name of a peer (hack/peers).
runtime_path() {
  case $1 in
    runc | crun | youki) "$HACK/peers" "$1" | sed 's/.*=//' ;;
    *) readlink -e "$1" || die "$1: no such runtime" ;;
  esac
}
