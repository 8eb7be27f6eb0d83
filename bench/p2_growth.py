"""P2: does a placement cost more in a larger cluster? P1's run at 100, 1,000 and 10,000 hypervisors.

The value is the cost per guest at 10,000 hypervisors over that at 100. Each is measured beside the raw ceiling of its
own run, because the machine's pace may change between them; `paced` is the same with each cost in ceilings.

    make bench-P2            QUICK=1 for one round of 1,000 guests each
"""

from __future__ import annotations

import os
import statistics
from typing import Final

from bench.p1_placements import run
from lochness.log import configure_logging

SIZES: Final = (100, 1000, 10_000)


def main() -> None:
    configure_logging("error")
    guests, rounds = (1000, 1) if os.environ.get("QUICK") else (10_000, 3)
    rates: dict[int, list[float]] = {size: [] for size in SIZES}
    ratios: dict[int, list[float]] = {size: [] for size in SIZES}
    wrong = 0
    for number in range(rounds):
        for size in SIZES:
            rate, ceiling, violations = run(size, guests)
            print(f"round {number + 1}, {size} hypervisors: {rate:.0f} guests/s, ceiling {ceiling:.0f}", flush=True)
            rates[size].append(rate)
            ratios[size].append(rate / ceiling)
            wrong += violations
    rate_of = {size: statistics.median(found) for size, found in rates.items()}
    paced = statistics.median(ratios[SIZES[0]]) / statistics.median(ratios[SIZES[-1]])
    shown = " ".join(f"rate_{size}={rate_of[size]:.0f}" for size in SIZES)
    print(
        f"P2 value={rate_of[SIZES[0]] / rate_of[SIZES[-1]]:.2f} unit=times paced={paced:.2f} {shown} n={guests} "
        f"violations={wrong} rounds={rounds}"
    )


if __name__ == "__main__":
    main()
