#!/bin/sh
# dockerd starts once and stops: its programs, its modules and its chains are in memory after that,
# and nothing of its state is left. Run as root where no container ever was.
set -eu
PATH=/usr/local/libexec/machine/docker/current:$PATH
socket=/run/rehearsal.sock
set -- "$(command -v dockerd)" --host "unix://$socket" --pidfile /run/rehearsal.pid
[ ! -S /run/containerd/containerd.sock ] || set -- "$@" --containerd /run/containerd/containerd.sock
systemd-run --quiet --unit docker-rehearsal --property Type=notify --setenv "PATH=$PATH" "$@"
docker --host "unix://$socket" info > /dev/null
systemctl stop docker-rehearsal.service
ip link delete docker0 || true
rm -rf /var/lib/docker /run/docker /etc/docker/key.json "$socket"
