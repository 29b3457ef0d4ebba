# shellcheck shell=bash
# Runs once in the new VM, whose disk keeps it: the image busybox, in docker and in containerd.
set -e
for _ in $(seq 60); do docker info >/dev/null 2>&1 && break; sleep 1; done
docker load -q -i /mnt/in/busybox.tar
ctr images import /mnt/in/busybox.tar
cp /mnt/in/busybox.tar /var/lib/busybox-image.tar
systemctl stop docker.socket docker containerd
sync
