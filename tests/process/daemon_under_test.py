"""A daemon that does what files tell it: `python -m tests.process.daemon_under_test DIRECTORY NAME[,NAME] INTERVAL_S`.

For each NAME, in DIRECTORY: NAME.mode is read by every pass: "good", "failing" (a store that is not reached),
"broken" (an error nobody foresaw), "misconfigured", "blocking" (5 s, as a store call may take). NAME.stop says the same
about its end, NAME.reload about SIGHUP. NAME.log gets a word for everything that happened, NAME.wake is a pipe: a byte
wakes the daemon.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from lochness.errors import ConfigurationError, UnavailableError
from lochness.log import configure_logging
from lochness_node.daemon import PassReport, Waker, run_daemons

BLOCKING_S = 5.0


class ObedientDaemon:
    def __init__(self, directory: Path, name: str, interval_s: float) -> None:
        self.name = name
        self.interval_s = self.retry_max_s = interval_s
        self.waker = Waker()
        self._path = directory / name
        self._passes = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def run_pass(self) -> PassReport:
        self._passes += 1
        self._obey("mode", f"pass {self._passes}")
        return PassReport(status=f"{self._passes} passes")

    def reload(self) -> None:
        self._obey("reload", "reload")

    def stop(self) -> None:
        self._obey("stop", "stop")

    def _obey(self, order: str, word: str) -> None:
        with self._path.with_suffix(".log").open("a") as log:
            log.write(f"{word}\n")
        file = self._path.with_suffix(f".{order}")
        match file.read_text().strip() if file.exists() else "good":
            case "failing":
                raise UnavailableError("the store was not reached")
            case "broken":
                raise KeyError("nobody foresaw this")
            case "misconfigured":
                raise ConfigurationError("interval must be above 0, got -1")
            case "blocking":
                threading.Event().wait(BLOCKING_S)

    def _listen(self) -> None:
        with self._path.with_suffix(".wake").open("rb", buffering=0) as pipe:
            while pipe.read(1):
                self.waker.wake()


def main() -> int:
    directory, names, interval_s = sys.argv[1:]
    configure_logging("info", identifier="daemon-under-test")
    return run_daemons([ObedientDaemon(Path(directory), name, float(interval_s)) for name in names.split(",")])


if __name__ == "__main__":
    sys.exit(main())
