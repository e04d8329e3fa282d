#!/bin/sh
# On the machine whose memory becomes a warm layer: bring it to where every machine of its kind is
# alike, say so on the console, and wait. Every machine that starts from that memory goes on below,
# with its own identity on the disk. Arguments: the file that the engine waits at, and its unit.
set -eu
disk=/dev/disk/by-id/virtio-machine-identity
here=/usr/local/lib/machine/warm
key=/etc/ssh/ssh_host_ed25519_key
door=$1 unit=$2
trap 'echo "machine: not warm" > /dev/console' EXIT

instance() { # the tar's first file, read past every cache
    dd if=$disk bs=512 skip=1 count=1 iflag=direct status=none | tr -d '\0'
}
waits() { # whether one of a service's threads waits for the other end of a pipe
    grep -qs wait_for_partner /proc/"$(systemctl show -P MainPID "$1")"/task/*/wchan
}
open() { # who waits gets the file's content; who opens it again, or later, the file
    exec 3> "$1"
    cp -p "$2" "$1.new"
    mv "$1.new" "$1"
    cat "$2" >&3
    exec 3>&-
}

systemctl is-system-running --wait > /dev/null
sh $here/rehearse.sh

# sshd and the engine start, and stop at the first thing that is a machine's own.
mkfifo -m 600 $key "$door"
systemctl start --no-block ssh.service "$unit"
until waits ssh.service && waits "$unit"; do sleep 0.1; done

for link in /sys/class/net/eth*; do ip link set "${link##*/}" down; done
rm -f /etc/systemd/network/*-machine*.network /etc/machine-id /var/lib/systemd/random-seed
journalctl --quiet --rotate --vacuum-size=1
sync
own=$(instance)
trap - EXIT
echo 'machine: warm' > /dev/console
until new=$(instance) && [ "$new" != "$own" ]; do sleep 0.05; done

# From here on it is somebody. The clock first: certificates have a beginning.
date --set "@$(cat /sys/class/rtc/rtc0/since_epoch)" > /dev/null
mkdir -p /run/machine/doors
dd if=$disk bs=1M count=1 iflag=direct status=none | tar -xC /run/machine
cd /run/machine
cat random > /dev/urandom
mv "root$key" doors/key
mv "root$door" doors/engine
cp -a root/. /
hostname "$(cat root/etc/hostname)"
number=0
while read -r mac; do
    ip link set "eth$number" address "$mac"
    number=$((number + 1))
done < macs
networkctl reload
user=$(cat user)
home=$(getent passwd "$user" | cut -d: -f6)
cat authorized_keys > "$home/.ssh/authorized_keys"
open $key doors/key
open "$door" doors/engine
echo "$new" > /var/lib/machine/instance-id
echo "machine: identity $new applied" > /dev/console

# What is not waited for: who remembers the machine's id from the start reads it again.
rm -rf /run/machine $here /etc/systemd/system/ssh.service.d/warm.conf \
    /etc/systemd/system/machine-warm.service \
    /etc/systemd/system/multi-user.target.wants/machine-warm.service
rmdir --ignore-fail-on-non-empty /etc/systemd/system/ssh.service.d /usr/local/lib/machine
systemctl daemon-reload
systemctl --no-block restart systemd-journald.service
