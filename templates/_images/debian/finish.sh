#!/bin/sh
# Turn an unpacked Debian into a guest: called once, as (mapped) root, with the root folder.
set -eu
root=$1

# The whole disk is one file system; it grows to the disk's size at boot.
echo 'LABEL=root / ext4 errors=remount-ro,x-systemd.growfs 0 1' > "$root/etc/fstab"
mkdir -p "$root/var/lib/machine"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

cat > "$root/etc/ssh/sshd_config.d/10-machine.conf" <<'EOF'
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
UseDNS no
EOF
# Without its trial run before each start: sshd says the same when it starts, and it takes half of
# the time. Without a host key it has no use.
mkdir -p "$root/etc/systemd/system/ssh.service.d"
cat > "$root/etc/systemd/system/ssh.service.d/10-machine.conf" <<'EOF'
[Unit]
ConditionPathExists=/etc/ssh/ssh_host_ed25519_key
[Service]
ExecStartPre=
EOF
mkdir -p "$root/etc/systemd/resolved.conf.d"
printf '[Resolve]\nLLMNR=no\nMulticastDNS=no\n' > "$root/etc/systemd/resolved.conf.d/10-machine.conf"

chroot "$root" groupadd --system --force docker
chroot "$root" passwd --lock root >/dev/null
chroot "$root" systemctl -q enable systemd-networkd systemd-resolved ssh
chroot "$root" systemctl -q set-default multi-user.target
# Its sockets for ssh over vsock find no such device, and it says so at every reload.
mkdir -p "$root/etc/systemd/system-generators"
ln -sf /dev/null "$root/etc/systemd/system-generators/systemd-ssh-generator"

# A first boot under emulation pays for each of these; none is of use on an unattended guest.
chroot "$root" systemctl -q mask \
  getty@tty1.service serial-getty@ttyS0.service console-getty.service \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
  systemd-networkd-wait-online.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
  systemd-pstore.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
  modprobe@drm.service modprobe@configfs.service modprobe@efi_pstore.service \
  sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount \
  sys-fs-fuse-connections.mount
