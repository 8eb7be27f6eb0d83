"""How does a daemon notice at once that a guest was bound to this hypervisor, or is no longer?

1. The watch only wakes the loop; what it saw is read anew by the pass.
2. Its loss is said once and wakes the loop too, as does its recovery: between the two the daemon lives by its cadence.
"""

from __future__ import annotations

from collections.abc import Mapping

from lochness import events, keys
from lochness.log import Logger
from lochness.store.protocol import Store
from lochness.store.watching import Watching
from lochness_node.pass_loop import Waker


class BindingWatch:
    """Wakes `waker` on every change under hypervisors/ID/guests/."""

    def __init__(self, store: Store, hypervisor_id: str, waker: Waker, log: Logger) -> None:
        self._waker = waker
        self._log = log
        self._is_started = False
        self._watching = Watching(
            store,
            keys.hypervisor_guests(hypervisor_id),
            on_snapshot=lambda _reading: waker.wake(),
            on_batch=lambda _batch: waker.wake(),
            on_transition=self._changed,
        )

    def ensure_started(self) -> None:
        """Begin to watch, if that has not happened yet. Never waits for the store."""
        if not self._is_started:
            self._is_started = True
            self._watching.start()

    def stop(self) -> None:
        self._watching.stop()

    def _changed(self, event: str, fields: Mapping[str, object]) -> None:
        match event:
            case events.WATCH_LOST:
                self._log.warning(event, **fields)
            case events.WATCH_RECOVERED:
                self._log.info(event, **fields)
            case _:
                self._log.error(event, **fields)
        self._waker.wake()
