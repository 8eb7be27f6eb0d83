"""What does the laboratory give libvirt to boot the guest image by itself, without an agent?

For tests of the image and for benchmarks of what a guest costs. The agent writes its own domains and seeds.
"""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import pycdlib

from lochness_lab.guest_image import MEMORY_MB, GuestImage
from lochness_lab.processes import require_program


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestDomain:
    """One guest on `bridge`: its `address` with prefix ("10.0.0.5/24"), the console's output in `console`."""

    name: str
    image: GuestImage
    bridge: str
    address: str
    gateway: str
    console: Path
    seed: Path
    mac: str = "02:00:00:00:00:05"
    #: "disk" for a virtio disk, "cdrom" for a drive on IDE.
    seed_device: str = "disk"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def write_seed(self) -> None:
        """Write the NoCloud volume to `seed`."""
        interface = {
            "match": {"macaddress": self.mac},
            "set-name": "eth0",
            "addresses": [self.address],
            "routes": [{"to": "0.0.0.0/0", "via": self.gateway}],
            "nameservers": {"addresses": []},
        }
        network = {"version": 2, "ethernets": {"eth0": interface}}
        write_seed(
            self.seed,
            {
                "meta-data": f"instance-id: {self.id}\nlocal-hostname: {self.name}\n",
                "network-config": json.dumps(network, indent=2) + "\n",
                "user-data": "#cloud-config\n{}\n",
            },
        )

    def xml(self) -> str:
        """libvirt's description: emulated, so that it runs on any machine."""
        target = {"disk": "dev='vda' bus='virtio'", "cdrom": "dev='hda' bus='ide'"}[self.seed_device]
        return f"""\
<domain type='qemu'><name>{escape(self.name)}</name><uuid>{self.id}</uuid>
<memory unit='MiB'>{MEMORY_MB}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{self.image.kernel}</kernel>
<initrd>{self.image.initrd}</initrd><cmdline>{escape(self.image.cmdline)}</cmdline></os>
<features><acpi/></features>
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>destroy</on_crash>
<devices><emulator>{require_program("qemu-system-x86_64", "qemu-system-x86")}</emulator>
<disk type='file' device='{self.seed_device}'><driver name='qemu' type='raw'/><source file='{self.seed}'/>
<target {target}/><readonly/></disk>
<interface type='bridge'><mac address='{self.mac}'/><source bridge='{self.bridge}'/><model type='virtio'/></interface>
<serial type='file'><source path='{self.console}'/></serial><memballoon model='virtio'/></devices></domain>
"""


def write_seed(path: Path, files: dict[str, str]) -> None:
    """An ISO 9660 volume "cidata" with the files' names in Joliet and Rock Ridge, as cloud-init looks for it."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for name, text in files.items():
        content = text.encode()
        short = name.upper().replace("-", "_")
        iso.add_fp(io.BytesIO(content), len(content), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()
