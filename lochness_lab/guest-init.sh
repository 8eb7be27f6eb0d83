#!/bin/sh
# The demo guest's whole user space: pid 1 of an initramfs with busybox. It takes its name and address from a NoCloud
# seed (an ISO 9660 volume labelled "cidata"), else its address by DHCP, answers ping and HTTP, and obeys the ACPI
# power button. What it says on the console is how demo and tests know where it is.
# Starting a program is what costs time in an emulated guest, so the shell does what it can by itself.
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

say() { # WORDS, with the seconds since the kernel started behind them
    read -r uptime _ </proc/uptime
    echo "$* $uptime" >/dev/console
}

load() { # the modules of one directory, in the order of their numbers
    for module in /modules/"$1"/*.ko; do insmod "$module"; done 2>/dev/null
}

find_seed() { # sets $seed to the device, or leaves it empty
    for device in /dev/vd[a-z] /dev/sr[0-9] /dev/sd[a-z]; do
        [ -b "$device" ] || continue
        case $(dd if="$device" bs=1 skip=32808 count=6 2>/dev/null) in
            cidata | CIDATA) seed=$device && return ;;
        esac
    done
}

read_name() { # sets $name from meta-data, YAML or JSON
    while IFS=' 	:",{}' read -r first second _ _ fifth _; do # in JSON every quote begins a field
        [ "$first" = local-hostname ] && name=$second
        [ "$second" = local-hostname ] && name=$fifth
    done <"$1"
}

# Sets $mac, $addresses, $gateways and $nameservers from a version 2 network configuration in JSON: between the signs are
# only keys and values, and what a value means is told by the last key before it.
read_network() {
    key=
    while IFS= read -r line || [ -n "$line" ]; do
        IFS=' 	"[]{},'
        for word in $line; do
            case $word in
                : | version* | ethernets) ;;
                macaddress | set-name | addresses | to | via) key=$word ;;
                *) case $key:$word in
                    macaddress:*) mac=$word ;;
                    addresses:*/*) addresses="$addresses $word" ;;
                    addresses:*[.:]*) nameservers="$nameservers $word" ;;
                    via:*) gateways="$gateways $word" ;;
                esac ;;
            esac
        done
        unset IFS
    done <"$1"
}

find_interface() { # sets $interface to the one with $mac, else eth0
    interface=eth0
    for candidate in /sys/class/net/*; do
        read -r address <"$candidate/address"
        [ -n "$mac" ] && [ "$address" = "$mac" ] && interface=${candidate##*/}
    done
}

configure_statically() {
    echo 0 >"/proc/sys/net/ipv6/conf/$interface/accept_dad"
    ip link set "$interface" up
    for address in $addresses; do
        ip address add "$address" dev "$interface" && say "GUEST-IP ${address%/*}"
    done
    for gateway in $gateways; do
        case $gateway in
            *:*) ip -6 route add default via "$gateway" dev "$interface" ;;
            *) ip route add default via "$gateway" dev "$interface" ;;
        esac
    done
    for nameserver in $nameservers; do echo "nameserver $nameserver" >>/etc/resolv.conf; done
}

say GUEST-UP
load first
find_seed
[ -n "$seed" ] || { load seldom && find_seed; }
name=guest
if [ -n "$seed" ] && mount -t iso9660 -o ro "$seed" /seed; then
    say "GUEST-SEED $seed"
    [ -f /seed/meta-data ] && read_name /seed/meta-data
    [ -f /seed/network-config ] && read_network /seed/network-config
    [ -f /seed/user-data ] && read -r first_line </seed/user-data
    case $first_line in '#!'*) cp /seed/user-data /run/user-data && chmod +x /run/user-data ;; esac
    umount /seed
fi
echo "$name" >/proc/sys/kernel/hostname

ip link set lo up
find_interface
if [ -n "$addresses" ]; then
    configure_statically 2>/dev/null
elif [ -d "/sys/class/net/$interface" ]; then
    ip link set "$interface" up
    udhcpc -i "$interface" -s /etc/udhcpc.sh -x "hostname:$name" -b -t 30 -T 1 -A 2 >/dev/null 2>&1 &
fi
acpid -l /dev/null
echo "Hello from $name, a guest of Loch Ness." >/www/index.html
httpd -p 80 -h /www
say "$name ready: GUEST-READY"
load later
[ -x /run/user-data ] && /run/user-data >/dev/console 2>&1 &

while :; do setsid cttyhack sh </dev/console >/dev/console 2>&1 || sleep 1; done
