#!/bin/sh
# On the machine whose memory becomes a warm layer: bring it to where every machine of its kind is
# alike, say so on the console, and wait. Every machine that starts from that memory goes on below,
# with its own identity on the disk. Arguments: the file that the engine waits at, its unit, the user.
set -eu
disk=/dev/disk/by-id/virtio-machine-identity
here=/usr/local/lib/machine/warm
key=/etc/ssh/ssh_host_ed25519_key
door=$1 unit=$2 user=$3
trap 'echo "machine: not warm" > /dev/console' EXIT

instance() { # the tar's first file, read past every cache
    dd if=$disk bs=512 skip=1 count=1 iflag=direct status=none | { read -r id && echo "$id"; }
}
waits() { # whether one of a service's threads waits for the other end of a pipe
    grep -qs wait_for_partner /proc/"$(systemctl show -P MainPID "$1")"/task/*/wchan
}
lines() { # a small file, without a program for it
    while IFS= read -r line; do echo "$line"; done < "$1"
}

systemctl is-system-running --wait > /dev/null
sh $here/rehearse.sh

# sshd and the engine start, and stop at the first thing that is a machine's own.
mkfifo -m 600 $key "$door"
systemctl start --no-block ssh.service "$unit"
until waits ssh.service && waits "$unit"; do sleep 0.1; done

for link in /sys/class/net/eth*; do ip link set "${link##*/}" down; done
# Who tries to reach the machine already asks for its address once a second only: tell, unasked.
echo 1 > /proc/sys/net/ipv4/conf/all/arp_notify
read -r nobody < /etc/machine-id
journalctl --quiet --rotate --vacuum-size=1 # finds the journal by the id that goes now
rm -f /etc/systemd/network/*-machine*.network /etc/machine-id /var/lib/systemd/random-seed
home=$(getent passwd "$user" | cut -d: -f6)
mkdir -p /run/machine
cd /run/machine
sync
own=$(instance)
trap - EXIT
echo 'machine: warm' > /dev/console
until new=$(instance) && [ "$new" != "$own" ]; do sleep 0.05; done

# From here on it is somebody. The clock first: certificates have a beginning. Each program that is
# not started saves a tenth of a second under emulation. Who waits at a pipe gets what is in the
# file that has taken its place by then, and finds the file when it opens it again.
read -r now < /sys/class/rtc/rtc0/since_epoch
date --set "@$now" > /dev/null
exec 3<> $key 4<> "$door"
dd if=$disk bs=1M count=1 iflag=direct status=none | tar -xP --transform='s,^root/,/,'
lines random > /dev/urandom
lines /etc/hostname > /proc/sys/kernel/hostname
lines "$door" >&4
exec 4>&-
lines authorized_keys > "$home/.ssh/authorized_keys"
ip -batch links
lines $key >&3
exec 3>&-
echo "$new" > /var/lib/machine/instance-id
echo "machine: identity $new applied" > /dev/console
networkctl reload
systemctl start "$unit" || true

# What nobody waits for. The journal goes on under the new id, with what was logged since the memory
# was saved; journald keeps the id that it began with.
rm -rf /run/machine $here /etc/systemd/system/machine-warm.service \
    /etc/systemd/system/multi-user.target.wants/machine-warm.service
rmdir --ignore-fail-on-non-empty /usr/local/lib/machine
mv /var/log/journal/"$nobody" /var/log/journal/"$new"
systemctl restart systemd-journald.service
