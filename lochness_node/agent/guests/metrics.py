"""How are a guest's counters spelled on the wire? Pure.

WIRE.md section 6 gives names and shapes; a disk is known by its name in the guest, an interface as net0, net1 ...
"""

from __future__ import annotations

from lochness_node.driver.protocol import DiskMetrics, Metrics, NicMetrics


def cpu_fields(metrics: Metrics) -> list[dict[str, int]]:
    """Nanoseconds of the guest's process, and of its vCPUs alone."""
    return [{"cpu_time": metrics.cpu.cpu_time_ns, "vcpu_time": metrics.cpu.vcpu_time_ns}]


def disk_fields(metrics: Metrics) -> dict[str, dict[str, str | int]]:
    return {disk.disk: _disk(disk) for disk in metrics.disks}


def nic_fields(metrics: Metrics) -> dict[str, dict[str, str | int]]:
    return {nic.name: _nic(nic) for nic in metrics.nics}


def _disk(disk: DiskMetrics) -> dict[str, str | int]:
    return {
        "disk": disk.disk,
        "read_ops": disk.read_ops,
        "read_bytes": disk.read_bytes,
        "read_time": disk.read_time_ns,
        "write_ops": disk.write_ops,
        "write_bytes": disk.write_bytes,
        "write_time": disk.write_time_ns,
        "flush_ops": disk.flush_ops,
        "flush_time": disk.flush_time_ns,
    }


def _nic(nic: NicMetrics) -> dict[str, str | int]:
    return {
        "name": nic.name,
        "rx_bytes": nic.rx_bytes,
        "rx_packets": nic.rx_packets,
        "rx_errors": nic.rx_errors,
        "rx_drops": nic.rx_drops,
        "tx_bytes": nic.tx_bytes,
        "tx_packets": nic.tx_packets,
        "tx_errors": nic.tx_errors,
        "tx_drops": nic.tx_drops,
    }
