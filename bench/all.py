"""Every goal's benchmark, one after the other; each one's last line goes into bench/results.md with its command.

A goal is a module `bench/ID_*.py` (p1_..., r1_..., a1_...), run as `make bench-ID`. QUICK=1 makes each a small run.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
GOAL: Final = re.compile(r"(?P<id>[aprs][0-9]+)_[a-z0-9_]+\.py")
LIMIT_S: Final = 4 * 3600


def goals() -> dict[str, str]:
    """Goal ids ("R1") and their modules, in order."""
    found = {match["id"].upper(): path.stem for path in sorted(HERE.iterdir()) if (match := GOAL.fullmatch(path.name))}
    return dict(sorted(found.items(), key=lambda item: (item[0][0], int(item[0][1:]))))


def main() -> None:
    lines, failed = [], []
    for goal, module in goals().items():
        print(f"== {goal}: python -m bench.{module}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"bench.{module}"],
            check=False,
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
        )
        print(done.stdout, end="", flush=True)
        if done.returncode:
            failed.append(goal)
        last = (done.stdout.strip().splitlines() or [f"{goal} printed nothing"])[-1]
        lines.append(f"| `make bench-{goal}` | `{last}` |")
    size = "QUICK=1, " if os.environ.get("QUICK") else ""
    head = f"{size}{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs, Linux {platform.release().split('-')[0]}"
    table = "\n".join(["# Results", "", head, "", "| command | last line |", "|---|---|", *lines])
    (HERE / "results.md").write_text(table + "\n")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
