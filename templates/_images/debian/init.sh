#!/bin/busybox sh
# The whole initramfs: mount the root disk, put the host's identity on it once, go on.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
load() { for module in $(cat "/modules/$1"); do insmod "/modules/$module"; done; }

root=/dev/vda
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; esac
done
load virtio
mkdir -p /new /identity /dvd
case $root in
LABEL=*)  # on a disk of any kind, and then a DVD may hold the identity
    load others
    find_root() { findfs "$root" 2>/dev/null; }
    find_dvd() {
        dvd=$(findfs LABEL=machine-identity 2>/dev/null) || return
        mount -t iso9660 -o ro "$dvd" /dvd && cp /dvd/identity.tar /identity.tar && umount /dvd &&
            echo /identity.tar
    } ;;
*)
    find_root() { [ -b "$root" ] && echo "$root"; }
    find_dvd() { :; } ;;
esac
tries=0
until disk=$(find_root) || [ $tries -ge 100 ]; do sleep 0.1; tries=$((tries + 1)); done
mount -t ext4 -o rw "$disk" /new || { echo "machine: cannot mount $root"; exec sh; }

find_identity() {
    for disk in /sys/block/*; do
        [ "$(cat "$disk/serial" 2>/dev/null)" = machine-identity ] && echo "/dev/${disk##*/}"
    done
    find_dvd
}
for medium in $(find_identity); do
    tar -xf "$medium" -C /identity || { echo "machine: the identity is damaged"; continue; }
    instance=$(cat /identity/instance-id)
    [ "$instance" = "$(cat /new/var/lib/machine/instance-id 2>/dev/null)" ] && continue
    user=$(cat /identity/user)
    cp -a /identity/root/. /new/
    grep -q "^$user:" /new/etc/passwd ||
        chroot /new useradd --create-home --shell /bin/bash --groups sudo,docker "$user"
    home=$(grep "^$user:" /new/etc/passwd | cut -d: -f6)
    mkdir -p "/new$home/.ssh"
    cp /identity/authorized_keys "/new$home/.ssh/authorized_keys"
    chmod 700 "/new$home/.ssh"
    chmod 600 "/new$home/.ssh/authorized_keys"
    chroot /new chown -R "$user:$user" "$home/.ssh"
    sync
    echo "$instance" > /new/var/lib/machine/instance-id
    echo "machine: identity $instance applied"
done

umount /proc /sys
mount --move /dev /new/dev
exec switch_root /new /sbin/init
