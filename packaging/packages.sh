#!/bin/bash
# How do this checkout's files become Debian packages? One command, its result in dist/:
#
#   packaging/packages.sh           lochness-common, lochness-client, lochness-node, lochness-controller
#
# 1. They are self-contained: a virtual environment below /usr/lib/lochness with Debian's python3, and every Python
#    package they use. Its wheels come from pip, at build time only.
# 2. Nothing of the building machine is in them: no path, no user, no time but that of the commit.
# 3. The dependencies are made once per pyproject.toml (build/packages/dependencies-*), so a second run takes seconds;
#    and when nothing has changed, dist/ is left as it is.
# 4. Nothing outside build/ and dist/ is written.
#
# PACKAGE_VERSION sets the version; else it is pyproject.toml's, with the number of commits behind it when HEAD has no
# tag. PACKAGE_COMPRESSION is dpkg-deb's -Z, zstd unless set.
# It needs what packaging/bootstrap.sh venv provides, and dpkg-deb.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

python=/usr/bin/python3 # Debian's own: it is what the packages run on
pip=(.venv/bin/python -m pip --disable-pip-version-check -qq)
home=/usr/lib/lochness
build=build/packages

say() { printf 'packages: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

[ -x .venv/bin/python ] || fail "there is no .venv: run make venv first"
command -v dpkg-deb >/dev/null || fail "dpkg-deb is needed (a Debian system)"
python_version=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "$python is needed (python3)"
$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python must be 3.11 or newer"
[ -e "/usr/include/python$python_version/Python.h" ] || fail "libvirt's binding is compiled: install python3-dev"
architecture=$(dpkg --print-architecture)
minor=${python_version#3.}
python_range="python3 (>= 3.$minor~), python3 (<< 3.$((minor + 1))~)"

source_version() {
    local version
    version=$(.venv/bin/python -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
    if ! git rev-parse -q --verify HEAD >/dev/null 2>&1 || [ -n "$(git tag --points-at HEAD --list 'v*')" ]; then
        echo "$version"
    else
        echo "$version+r$(git rev-list --count HEAD)"
    fi
}
version=${PACKAGE_VERSION:-$(source_version)}
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y pyproject.toml)

# Everything that decides about the result.
sources=(lochness lochness_node lochness_controller systemd packaging pyproject.toml LICENSE README.md CHANGELOG.md)
fingerprint=$({
    echo "$version $architecture $python_version ${PACKAGE_COMPRESSION:-zstd}"
    find "${sources[@]}" -type f -not -name '*.pyc' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum | cut -c1-16)
stop_when_up_to_date() {
    if [ "$(cat dist/.packages 2>/dev/null)" = "$fingerprint" ]; then
        say "dist/ is up to date: $version"
        exit 0
    fi
}
stop_when_up_to_date
mkdir -p $build dist
exec 9>$build/lock
flock -w 900 9 || fail "another build has held $build/lock for 900 s"
stop_when_up_to_date # by the build that we have waited for

# ------------------------------------------------------------------------------------------- the virtual environment

dependencies=$build/dependencies-$({ cat pyproject.toml; echo "$python_version $architecture"; } | sha256sum | cut -c1-12)
if [ ! -e "$dependencies/.complete" ]; then
    say "pip: the packages that pyproject.toml names for node and controller; libvirt's binding is compiled ..."
    rm -rf "$dependencies"
    $python -m venv --without-pip --symlinks "$dependencies"
    .venv/bin/python - >"$build/requirements.txt" <<'PYTHON'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
print(*sorted({*project["dependencies"], *extras["node"], *extras["controller"]}), sep="\n")
PYTHON
    "${pip[@]}" --python "$dependencies/bin/python" install --no-compile --use-pep517 -r "$build/requirements.txt"
    touch "$dependencies/.complete"
fi

say "lochness $version ..."
rm -rf $build/documents
SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH .venv/bin/python -m lochness.cli.manual $build/documents # of the command's own help
tree=$build/tree
rm -rf "$tree" $build/wheel
"${pip[@]}" wheel --no-deps --wheel-dir $build/wheel .
cp -a "$dependencies" "$tree"
rm -f "$tree/.complete"
"${pip[@]}" --python "$tree/bin/python" install --no-compile --no-deps --no-index $build/wheel/lochness-*.whl
site=$tree/lib/python$python_version/site-packages

# What pip and venv leave of the building machine.
find "$tree/bin" -mindepth 1 -not -name 'python*' -delete
rm -rf "$tree/include" "$tree/share" "$site/lochness_lab"
rm -f "$site"/*.dist-info/direct_url.json
for record in "$site"/*.dist-info/RECORD; do
    sed -i -E '\#^(\.\./|lochness_lab/|[^,]*/direct_url\.json,)#d' "$record"
done
sed -i '/^lochness-lab *=/d' "$site"/lochness-*.dist-info/entry_points.txt
ln -sfn $python "$tree/bin/python3"
printf 'home = %s\ninclude-system-site-packages = false\nversion = %s\n' \
    "$(dirname $python)" "$($python -c 'import platform; print(platform.python_version())')" >"$tree/pyvenv.cfg"
# An operator's own candidate functions: pip install --target /usr/local/lib/lochness PACKAGE
echo /usr/local/lib/lochness >"$site/lochness-local.pth"
launcher() { # NAME MODULE: -I, so that no variable and no file of a user's changes what runs
    printf '#!%s/bin/python3 -I\nimport sys\n\nfrom %s import main\n\nsys.exit(main())\n' $home "$2" >"$tree/bin/$1"
    chmod 755 "$tree/bin/$1"
}
launcher lochness lochness.cli.main
launcher lochness-node lochness_node.main
launcher lochness-controller lochness_controller.main
find "$tree" -name __pycache__ -prune -exec rm -rf {} +
find "$site" -type d \( -name tests -o -name test \) -prune -exec rm -rf {} +
find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# Compiled here, as /usr is not for daemons to write to; the paths inside are those of the installed files.
"$tree/bin/python" -m compileall -q -j 0 --invalidation-mode timestamp -s "$tree" -p $home "$site" ||
    fail "a Python file does not compile"
if left=$(grep -rlF "$PWD" "$tree"); then fail "the build's own path is in: $left"; fi

# ------------------------------------------------------------------------------------------------------- the packages

stage=$build/stage
rm -rf $stage
put() { # MODE FILE TARGET
    install -D -m "$1" "$2" "$stage/$package$3"
}
move() { # files of the tree, by pattern below site-packages
    local pattern path
    for pattern in "$@"; do
        for path in "$site"/$pattern; do
            [ -e "$path" ] || fail "nothing matches $pattern in the virtual environment"
            mkdir -p "$stage/$package$home/lib/python$python_version/site-packages"
            mv "$path" "$stage/$package$home/lib/python$python_version/site-packages/"
        done
    done
}
command_of() { # NAME
    mkdir -p "$stage/$package/usr/bin" "$stage/$package$home/bin"
    mv "$tree/bin/$1" "$stage/$package$home/bin/$1"
    ln -s ../lib/lochness/bin/"$1" "$stage/$package/usr/bin/$1"
}
documents() { # completion and man pages of the command NAME, where there are any
    local name=$1 page
    if [ -e "$build/documents/completion/$name.bash" ]; then put 644 "$build/documents/completion/$name.bash" "/usr/share/bash-completion/completions/$name"; fi
    if [ -e "$build/documents/completion/_$name" ]; then put 644 "$build/documents/completion/_$name" "/usr/share/zsh/vendor-completions/_$name"; fi
    if [ -e "$build/documents/completion/$name.fish" ]; then put 644 "$build/documents/completion/$name.fish" "/usr/share/fish/vendor_completions.d/$name.fish"; fi
    for page in $build/documents/man/"$name".[1-8] $build/documents/man/"$name"-*.[1-8]; do
        [ -e "$page" ] || continue
        [[ $name = lochness && $page =~ lochness-(node|controller) ]] && continue
        put 644 "$page" "/usr/share/man/man${page##*.}/${page##*/}"
        gzip -9n "$stage/$package/usr/share/man/man${page##*.}/${page##*/}"
    done
}
finish() { # DEPENDS DESCRIPTION [RECOMMENDS], the long description from standard input
    local depends=$1 summary=$2 recommends=${3:-} root=$stage/$package script
    put 644 packaging/deb/copyright "/usr/share/doc/$package/copyright"
    put 644 CHANGELOG.md "/usr/share/doc/$package/changelog"
    gzip -9n "$root/usr/share/doc/$package/changelog"
    mkdir -p "$root/DEBIAN"
    for script in preinst postinst prerm postrm; do
        if packaging/deb/script "$package" "$script" >$build/script; then
            install -m 755 $build/script "$root/DEBIAN/$script"
        fi
    done
    if [ -d "$root/etc" ]; then (cd "$root" && find etc -type f -printf '/%p\n' | LC_ALL=C sort >DEBIAN/conffiles); fi
    cat >"$root/DEBIAN/control" <<CONTROL
Package: $package
Version: $version
Architecture: $architecture
Maintainer: Loch Ness developers <lochness@localhost>
Section: admin
Priority: optional
Installed-Size: $(du -k -s --apparent-size "$root" | cut -f1)
Depends: $depends${recommends:+
Recommends: $recommends}
Description: $summary
$(sed 's/^$/./; s/^/ /')
CONTROL
    (cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Z"${PACKAGE_COMPRESSION:-zstd}" --build "$root" "$stage/${package}_${version}_$architecture.deb" >/dev/null
}

package=lochness-node
move lochness_node libvirt.py libvirt_qemu.py libvirt_lxc.py libvirtaio.py 'libvirtmod*.so' 'libvirt_python-*.dist-info' \
    psutil 'psutil-*.dist-info' pycdlib 'pycdlib-*.dist-info' zstandard 'zstandard-*.dist-info'
for name in libvirt libvirt_qemu libvirt_lxc libvirtaio; do move "__pycache__/$name.*.pyc"; done
mkdir "$stage/$package$home/lib/python$python_version/site-packages/__pycache__"
mv "$stage/$package$home/lib/python$python_version/site-packages"/*.pyc "$stage/$package$home/lib/python$python_version/site-packages/__pycache__/"
command_of lochness-node
for name in heartbeat resources guestwatch agent; do put 644 systemd/lochness-$name.service /lib/systemd/system/lochness-$name.service; done
put 644 systemd/lochness.sysusers /usr/lib/sysusers.d/lochness-node.conf
put 644 systemd/lochness.tmpfiles /usr/lib/tmpfiles.d/lochness-node.conf
put 644 packaging/node.toml.example /etc/lochness/node.toml
documents lochness-node
finish "lochness-common (= $version), libvirt0, libvirt-daemon-system | libvirt-daemon, qemu-utils, iproute2, systemd" \
    "the daemons of a Loch Ness hypervisor" "libvirt-daemon-driver-qemu, qemu-system-x86, ovmf" <<'TEXT'
Heartbeat, resources, guestwatch and agent: what runs on each machine that
carries guests. They hold the lease that says the machine is alive, report what
it has for guests, watch the guests and do the work on them through libvirt.

Stopping, upgrading or removing them leaves the guests running.
TEXT

package=lochness-controller
move lochness_controller
command_of lochness-controller
put 644 systemd/lochness-controller.service /lib/systemd/system/lochness-controller.service
put 644 systemd/lochness.sysusers /usr/lib/sysusers.d/lochness-controller.conf
grep ' /etc/lochness ' systemd/lochness.tmpfiles >$build/controller.tmpfiles
put 644 $build/controller.tmpfiles /usr/lib/tmpfiles.d/lochness-controller.conf
put 644 packaging/controller.toml.example /etc/lochness/controller.toml
documents lochness-controller
finish "lochness-common (= $version), systemd" "the controller of a Loch Ness cluster" <<'TEXT'
The HTTP API, the scheduler and the workers that carry out jobs by the
hypervisors' agents. Several may run at once.
TEXT

package=lochness-client
command_of lochness
documents lochness
finish "lochness-common (= $version)" "the command of Loch Ness's operators" <<'TEXT'
The command lochness: hypervisors, guests, networks, images and jobs of a
cluster, from any machine that reaches a controller.
TEXT

package=lochness-common
mkdir -p $stage/$package/usr/lib
cp -a "$tree" "$stage/$package$home"
put 644 systemd/lochness.target /lib/systemd/system/lochness.target
finish "$python_range, libc6" "Loch Ness: what its packages share" <<'TEXT'
A virtual environment below /usr/lib/lochness with the library of Loch Ness and
the Python packages that its commands use.

Loch Ness manages virtual machines on a cluster of libvirt/KVM hypervisors, its
state in etcd.
TEXT

rm -f dist/lochness-*_*.deb dist/.packages
mv $stage/*.deb dist/
echo "$fingerprint" >dist/.packages
rm -rf $stage "$tree" $build/wheel
say "dist/: $(cd dist && ls -1 lochness-*.deb | tr '\n' ' ')"
