"""R7: does anything grow? Each daemon is stopped and started again and again; then all work for hours.

Real guests on QEMU where that can be had (each daemon its own process), else libvirt's test driver (the node's four in
one). During the soak guests come and go without a pause; memory (RSS) and open files of every process, and the size of
etcd's database, are written down as they go. The controller keeps JOBS_KEPT finished jobs only, so that what it keeps
for people is full early on, and what grows after that is a leak; its window of past changes (10,000) is full after some
nine minutes: in less than 20 minutes the two cannot be told apart. A violation is a process that ended, memory whose
median of the last third lies over 5 % and 3 MB above that of the middle third, two open files more, a guest that could
not be created or deleted (counted by reason; the soak goes on), and what `lochness.invariants` finds.

    make bench-R7            2 hours; QUICK=1: half a minute; R7_MINUTES=20, R7_STARTS=N
    make soak                the same, with matplotlib for the picture

The report goes to build/soak.txt, and build/soak.png where matplotlib is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from lochness.errors import LochnessError
from lochness.invariants import check
from lochness.store.protocol import KeyValue
from lochness_lab.catalog import HYPERVISOR, catalog, first_image, guest_creation, registration
from lochness_lab.cluster import Cluster
from lochness_lab.cluster_kinds import DriverCluster, QemuCluster
from lochness_lab.waiting import wait_until

MINUTES: Final = 120.0
QUICK_MINUTES: Final = 0.4
STARTS: Final = 100
QUICK_STARTS: Final = 2
SAMPLE_S: Final = 5.0
#: Nothing can be said about growth from fewer samples.
SAMPLES_MIN: Final = 30
MEMORY_PART: Final = 0.05
MEMORY_MB: Final = 3.0
FILES: Final = 2
REPORT: Final = Path("build/soak.txt")
PICTURE: Final = Path("build/soak.png")
WIDTH: Final = 64
JOBS_KEPT: Final = 100
#: Failures are told apart by so much of their text, and so many kinds of them.
FAILURE_CHARACTERS: Final = 300
FAILURE_KINDS_MAX: Final = 20
AFTER_FAILURE_S: Final = 1.0
#: What is a failure's own and no reason: IDs, durations.
_OWN: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+\.\d+")
_BARS: Final = "▁▂▃▄▅▆▇█"


@dataclass
class Series:
    """One value over time: minutes and values."""

    unit: str
    minutes: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, minute: float, value: float) -> None:
        self.minutes.append(minute)
        self.values.append(value)

    def thirds(self) -> tuple[float, float]:
        """The medians of the middle and of the last third."""
        third = len(self.values) // 3
        return median(self.values[third : 2 * third]), median(self.values[2 * third :])


def growth(series: Mapping[str, Series]) -> list[str]:
    """What has grown, with its numbers; of SAMPLES_MIN samples or more, and not etcd's database, which is compacted."""
    found = []
    for name, each in series.items():
        if len(each.values) < SAMPLES_MIN or name.startswith("etcd db"):
            continue
        middle, last = each.thirds()
        limit = max(middle * MEMORY_PART, MEMORY_MB) if each.unit == "MB" else FILES
        if last - middle > limit:
            found.append(f"{name} grew from {middle:.1f} to {last:.1f} {each.unit}, allowed {limit:.1f}")
    return found


def text_plot(name: str, series: Series) -> str:
    """One line: smallest, largest and last value, and their course."""
    low, high = min(series.values), max(series.values)
    columns = min(WIDTH, len(series.values))
    course = ""
    for column in range(columns):
        part = series.values[column * len(series.values) // columns : (column + 1) * len(series.values) // columns]
        level = (max(part) - low) / (high - low) if high > low else 0
        course += _BARS[round(level * (len(_BARS) - 1))]
    return f"{name:28} {low:8.1f} {high:8.1f} {series.values[-1]:8.1f} {series.unit:5} {course}"


def picture(series: Mapping[str, Series], path: Path) -> bool:
    """Draw it; False where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    units = sorted({each.unit for each in series.values()})
    figure, axes = pyplot.subplots(len(units), 1, figsize=(10, 3.5 * len(units)), sharex=True, squeeze=False)
    for axis, unit in zip(axes[:, 0], units, strict=True):
        for name, each in series.items():
            if each.unit == unit:
                axis.plot(each.minutes, each.values, label=name)
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
        axis.grid(alpha=0.3)
    axes[-1, 0].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return True


class Soak:
    """The soak of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.series: dict[str, Series] = {}
        self.violations: list[str] = []
        self.guests = 0
        #: How often creating or deleting a guest failed, by reason.
        self.failures: Counter[str] = Counter()
        self._began_s = time.monotonic()

    def furnish(self) -> None:
        for words in (*registration(self.cluster), *catalog(self.cluster, first_image(self.cluster))):
            self.cluster.records(*words)
        wait_until(
            lambda: bool(self.cluster.record("hv", "show", HYPERVISOR)["alive"]), limit_s=60, what="living hypervisor"
        )

    def restart_daemons(self, times: int) -> None:
        """Stop each daemon by SIGTERM and start it again."""
        for number in range(1, times + 1):
            for name in list(self.cluster.parts):
                self.cluster.restart(name)
            self.sample()
            if number % 10 == 0 or number == times:
                print(f"R7: every daemon stopped and started {number} times of {times}", flush=True)

    def work(self, minutes: float) -> None:
        """Guests come and go; samples are taken."""
        self.series.clear()  # the restarted processes begin anew
        self._began_s = time.monotonic()
        told_s = sampled_s = 0.0
        while (gone_s := time.monotonic() - self._began_s) < minutes * 60:
            if gone_s - sampled_s >= SAMPLE_S or not self.series:
                sampled_s = gone_s
                self.sample()
            if gone_s - told_s >= 60:
                told_s = gone_s
                print(f"R7: {gone_s / 60:.0f} of {minutes:g} minutes, {self.guests} guests came and went", flush=True)
            name = f"soak{self.guests + sum(self.failures.values())}"
            try:
                self.cluster.record(*guest_creation(name))
                self.cluster.record("guest", "delete", name, "--wait")
                self.guests += 1
            except LochnessError as error:
                self._failed(name, error)
        self.sample()

    def _failed(self, name: str, error: LochnessError) -> None:
        """Take note of it, and clear away what there is of the guest: the soak goes on."""
        text = _OWN.sub("ID", error.message.replace(name, "GUEST"))[:FAILURE_CHARACTERS]
        if text not in self.failures:
            print(f"R7: {name}: {error.message}", flush=True)
        if text in self.failures or len(self.failures) < FAILURE_KINDS_MAX:
            self.failures[text] += 1
        else:
            self.failures["other reasons"] += 1
        with contextlib.suppress(LochnessError):
            self.cluster.cli("guest", "delete", name, "--force", "--wait")
        threading.Event().wait(AFTER_FAILURE_S)

    def sample(self) -> None:
        minute = (time.monotonic() - self._began_s) / 60
        for name, part in self.cluster.parts.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(part.pid)
                self._add(f"{name} memory", "MB", minute, process.memory_info().rss / 2**20)
                self._add(f"{name} files", "files", minute, process.num_fds())
        status = self.cluster.etcd_status()
        self._add("etcd db in use", "MB", minute, int(status["dbSizeInUse"]) / 2**20)

    def _add(self, name: str, unit: str, minute: float, value: float) -> None:
        self.series.setdefault(name, Series(unit)).add(minute, value)

    def finish(self) -> None:
        part = self.cluster.failing_part()
        if part is not None:
            self.violations.append(f"{part.name} ended with status {part.returncode}")
        self.violations += growth(self.series)
        self.violations += [f"failed {times} times: {text}" for text, times in self.failures.most_common()]
        items = [KeyValue(key, value.encode(), 1, 1, 0) for key, value in self.cluster.keys().items()]
        self.violations += [f"{violation.kind}: {violation.text}" for violation in check(items)]


def report(soak: Soak) -> Iterator[str]:
    yield f"{'':28} {'least':>8} {'most':>8} {'last':>8}"
    for name, series in sorted(soak.series.items()):
        yield text_plot(name, series)


def main() -> None:
    is_quick = bool(os.environ.get("QUICK"))
    minutes = float(os.environ.get("R7_MINUTES") or (QUICK_MINUTES if is_quick else MINUTES))
    starts = int(os.environ.get("R7_STARTS") or (QUICK_STARTS if is_quick else STARTS))
    kind = QemuCluster if QemuCluster.available() is None else DriverCluster
    began_s = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    print(f"R7: {kind.__name__}, each daemon {starts} times, then {minutes:g} minutes", flush=True)
    with tempfile.TemporaryDirectory(prefix="r7-", dir="/var/tmp") as directory:
        cluster = kind(Path(directory))
        cluster.controller_settings = {"jobs_kept_max": JOBS_KEPT}
        soak = Soak(cluster)
        with cluster:
            try:
                soak.furnish()
                soak.restart_daemons(starts)
                soak.work(minutes)
            except LochnessError as error:
                soak.violations.append(error.message)
            soak.finish()
    REPORT.parent.mkdir(exist_ok=True)
    lines = list(report(soak))
    REPORT.write_text("\n".join(lines) + "\n")
    REPORT.with_suffix(".json").write_text(
        json.dumps({name: [each.unit, each.minutes, each.values] for name, each in soak.series.items()})
    )
    print(*lines, *(f"R7: {text}" for text in soak.violations), sep="\n")
    drawn = picture(soak.series, PICTURE)
    print(f"R7: the report is in {REPORT}" + (f" and {PICTURE}" if drawn else "; make soak draws a picture too"))
    samples = max((len(each.values) for each in soak.series.values()), default=0)
    print(
        f"R7 value={len(soak.violations)} unit=violations minutes={minutes:g} starts={starts} guests={soak.guests} "
        f"failed={sum(soak.failures.values())} samples={samples} seconds={time.monotonic() - began_s:.0f}"
    )
    raise SystemExit(1 if soak.violations else 0)


if __name__ == "__main__":
    main()
