#!/bin/sh
# Copyright (c) 2026, The Build Fleet Authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The ground an instance of the lab stands on: a root, a network and control groups of its own.
#
#   machine.sh hold STATE ROOT RUN           become the process that holds the namespaces
#   machine.sh enter STATE PIDFILE COMMAND…  run a program in them
#
# STATE has `entrances` and `cgroup-mounts`, written by machine.py. The pid that a pid file names is
# the program's own: every step from here to it is an exec.

set -eu

record() { # PIDFILE: pid, start time and boot, so that nobody else is ever mistaken for us
  stat=$(cat /proc/$$/stat)
  # shellcheck disable=SC2086
  set -- "$1" ${stat##*) }
  shift 20 # the start time is the 20th word after the name; it stays the same through exec
  echo "$$ $1 $(cat /proc/sys/kernel/random/boot_id)" > "$pidfile.new"
  mv "$pidfile.new" "$pidfile"
}

join() { # every control group of the instance, before anything else exists that could escape it
  while read -r entrance; do
    echo $$ > "$entrance"
  done < "$state/entrances"
}

hold() {
  pidfile=$state/machine.pid
  join
  exec unshare --net --mount --cgroup --uts --propagation private "$0" inside "$state" "$root" "$run"
}

mount_control_groups() {
  mount -t sysfs sysfs sys
  if ! grep -q ' \.$' "$state/cgroup-mounts"; then # not the unified hierarchy alone
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
  fi
  while read -r type options directory; do
    mkdir -p "sys/fs/cgroup/$directory"
    mount -t "$type" -o "$options" "$type" "sys/fs/cgroup/$directory"
  done < "$state/cgroup-mounts"
}

inside() {
  pidfile=$state/machine.pid
  mount -t overlay -o "lowerdir=$root,upperdir=$state/upper,workdir=$state/work" overlay "$state/root"
  cd "$state/root"
  mount -t proc proc proc
  mount_control_groups
  mount --rbind /dev dev
  mount -t tmpfs -o mode=755 tmpfs run
  mkdir -p run/lab var/lib/docker var/lib/registry
  mount --bind "$run" run/lab
  mount --bind "$state/data" var/lib/docker # overlay does not lie on overlay: the real file system
  mount --bind "$state/registry" var/lib/registry
  hostname lab
  record "$pidfile" # the last step that needs the old root
  pivot_root . .old
  umount -l /.old
  mount --make-rshared / # as on every machine with systemd; containers may ask for it
  ip link set lo up
  exec sleep infinity
}

enter() {
  holder=$(cut -d' ' -f1 "$state/machine.pid")
  join
  record "$pidfile"
  exec nsenter --target "$holder" --mount --net --cgroup --uts --root --wd -- "$@"
}

action=$1
state=$2
shift 2
case $action in
  hold | inside)
    root=$1 run=$2
    "$action"
    ;;
  enter)
    pidfile=$1
    shift
    enter "$@"
    ;;
  *)
    echo "machine.sh: unknown action $action" >&2
    exit 2
    ;;
esac
