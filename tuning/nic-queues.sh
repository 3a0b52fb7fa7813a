#!/bin/sh
# One receive queue for each serving CPU, its interrupt on that CPU: packets are then handled on the core of a shard and
# not carried from one core's cache to another's. Unmeasured here: what is measured so far went over loopback, which has
# no queues. Prints what it would do; does it with --apply (as root).
#
# Many cards choose the queue of a datagram by its addresses alone: one client's datagrams then all meet one queue and, with
# TB_STEERING=cpu (or auto), one shard. See it with ethtool -n INTERFACE rx-flow-hash udp4; add the ports with
#   ethtool -N INTERFACE rx-flow-hash udp4 sdfn    (and udp6)
# or, where the card cannot, set TB_STEERING=hash.
#
# usage: nic-queues.sh INTERFACE CPU[,CPU…] [--apply]     e.g. nic-queues.sh eth0 0,1,2,3
set -eu

interface=${1:?"usage: nic-queues.sh INTERFACE CPU[,CPU...] [--apply]"}
cpus=$(printf '%s' "${2:?"which CPUs serve? see: trinity-beast host"}" | tr ',' ' ')
apply=${3:-}

case "$interface" in */* | *[!A-Za-z0-9._-]*) echo "no such interface: $interface" >&2; exit 2 ;; esac
[ -d "/sys/class/net/$interface" ] || { echo "no such interface: $interface" >&2; exit 2; }
for cpu in $cpus; do
    case "$cpu" in '' | *[!0-9]*) echo "not a CPU number: $cpu" >&2; exit 2 ;; esac
done

run() {
    echo "$*"
    if [ "$apply" = --apply ]; then "$@"; fi
}

store() {
    echo "echo $1 > $2"
    if [ "$apply" = --apply ]; then echo "$1" > "$2"; fi
}

count=$(printf '%s\n' $cpus | wc -l)
# As many queues as serving CPUs. A card with fewer keeps what it has: the loop below then uses the first CPUs.
run ethtool -L "$interface" combined "$count" || echo "# the card does not take $count queues: see ethtool -l $interface" >&2

# irqbalance would move the interrupts again.
if command -v systemctl > /dev/null && systemctl is-active --quiet irqbalance 2> /dev/null; then
    run systemctl stop irqbalance
fi

# Interrupts of the card: by its MSI list where it has one, else by name.
irqs=$(ls "/sys/class/net/$interface/device/msi_irqs" 2> /dev/null || true)
# A virtio card's list is its parent's.
[ -n "$irqs" ] || irqs=$(ls "/sys/class/net/$interface/device/../msi_irqs" 2> /dev/null || true)
[ -n "$irqs" ] || irqs=$(awk -F: -v name="$interface" '$0 ~ name { gsub(/ /, "", $1); print $1 }' /proc/interrupts)
[ -n "$irqs" ] || { echo "no interrupts found for $interface" >&2; exit 1; }

set -- $cpus
for irq in $irqs; do
    [ $# -gt 0 ] || set -- $cpus
    if [ -w "/proc/irq/$irq/smp_affinity_list" ] || [ "$apply" != --apply ]; then
        store "$1" "/proc/irq/$irq/smp_affinity_list"
    fi
    shift
done

# The queue is on the right core already: moving packets by software (RPS) would only add work.
for queue in "/sys/class/net/$interface/queues"/rx-*; do
    [ -e "$queue/rps_cpus" ] && store 0 "$queue/rps_cpus"
done
