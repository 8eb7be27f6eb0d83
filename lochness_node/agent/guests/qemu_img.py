"""How is qemu-img run? Without a shell, with a time limit, and with every format said: nothing is guessed from content.

Its complaint becomes our error. It takes QEMU's locks on what it writes: a disk that a guest has open is refused.
"""

from __future__ import annotations

import subprocess
from typing import Any, Final

import msgspec

from lochness.errors import DeadlineError, DriverError, UnavailableError

QEMU_IMG: Final = "qemu-img"
TIMEOUT_S: Final = 60.0


def qemu_img(*words: str, what: str, timeout_s: float = TIMEOUT_S) -> str:
    """What `qemu-img WORDS` prints. `what` says what for, "make /disks/vda": errors begin with it.

    Raises DriverError with qemu-img's words, DeadlineError, UnavailableError when it cannot be run at all.
    """
    try:
        done = subprocess.run(
            [QEMU_IMG, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise DeadlineError(f"qemu-img could not {what} within {timeout_s:g} s") from error
    except OSError as error:
        raise UnavailableError(f"qemu-img could not {what}: it does not run: {error.strerror}") from error
    if done.returncode != 0:
        text = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise DriverError(f"qemu-img could not {what}: {text}")
    return done.stdout


def qemu_img_json(*words: str, what: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """As `qemu_img`, for a command that prints a JSON object."""
    try:
        return msgspec.json.decode(qemu_img(*words, what=what, timeout_s=timeout_s), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise DriverError(f"qemu-img could not {what}: its answer is no JSON") from error
