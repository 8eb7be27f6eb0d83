"""What the application gives to handlers that name it as a parameter."""

from __future__ import annotations

from typing import TypeAlias

from litestar.di import NamedDependency

from lochness.clock import Clock
from lochness.context import Context
from lochness_controller.api.mirror import Mirror

GivenContext: TypeAlias = NamedDependency[Context]
GivenClock: TypeAlias = NamedDependency[Clock]
GivenMirror: TypeAlias = NamedDependency[Mirror]
