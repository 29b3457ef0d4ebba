# shellcheck shell=bash
# Runs once in the new VM, whose disk keeps it: the image busybox, in docker and in containerd.
set -e
for _ in $(seq 60); do docker info >/dev/null 2>&1 && break; sleep 1; done
docker import -c 'CMD ["sh"]' /mnt/in/busybox.tar busybox
docker save busybox -o /var/lib/busybox-image.tar
ctr images import /var/lib/busybox-image.tar
docker images
ctr images ls -q
systemctl stop docker.socket docker containerd
sync
