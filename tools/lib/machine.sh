#!/usr/bin/env bash
# The inside of tools/toolkit/machine.py: makes a root file system that is this one's with a layer above it, in namespaces
# of its own, and becomes its init. Usage, by unshare as root: machine.sh DIRECTORY, which holds extra/ (files to put in).
set -euo pipefail
directory=$1
root=$directory/root

mount --make-rprivate /
# What is written lives in memory, and is gone with the last process.
mount -t tmpfs -o mode=0755 tmpfs "$directory/layer"
mkdir "$directory/layer/upper" "$directory/layer/work"
mount -t overlay -o "lowerdir=/,upperdir=$directory/layer/upper,workdir=$directory/layer/work" overlay "$root"

mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=0755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"

# Directories of the outside to be seen inside, read-only: lines of "FROM TO".
while read -r from to; do
    mkdir -p "$root$to"
    mount --bind "$from" "$root$to"
    mount -o remount,bind,ro "$root$to"
done <"$directory/binds"

# Nothing but the log and what is asked for: no units that this machine has enabled, none that its packages bring.
rm -rf "$root"/etc/systemd/system "$root"/var/log/journal "$root"/lib/systemd/system/*.target.wants
mkdir -p "$root/etc/systemd/system/basic.target.wants"
ln -s /lib/systemd/system/systemd-journald.service "$root/etc/systemd/system/basic.target.wants/"
: >"$root/etc/fstab"
echo telemetry >"$root/etc/hostname"

mkdir "$root/outside"
cd "$root"
pivot_root . outside
umount -l /outside
rmdir /outside
# As systemd has it outside of containers: what it mounts for a service's credentials is to be seen in the service.
mount --make-rshared /
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target \
    --log-target=console --show-status=no
