#!/bin/sh
# Take out of an unpacked Debian what would make two guests alike, and what only its making left:
# called as (mapped) root, with the root folder, right before it becomes a disk. Twice is fine.
set -eu
root=$1

rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
: > "$root/etc/machine-id"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/lib/dhcp/* \
  "$root"/var/lib/systemd/timesync/* "$root"/var/lib/docker "$root"/var/lib/containerd \
  "$root"/etc/docker/key.json "$root"/root/.*_history "$root"/tmp/* "$root"/var/tmp/* "$root"/run/*
find "$root/var/log" -type f -exec truncate -s 0 {} +
touch "$root/etc/.updated" "$root/var/.updated"
