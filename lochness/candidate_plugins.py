"""Which candidate functions does the configuration name? The built-in ones, and operators' own from entry points.

An operator's own is a callable `(GuestRequest, Hypervisors) -> Hypervisors` in an installed package that declares

    [project.entry-points."lochness.candidates"]
    only_ssd = "our_rules:only_ssd"

and is named in the controller's configuration, in its place among the others:

    candidate_functions = ["candidate_is_alive", "only_ssd", "candidate_has_resources", "candidate_randomize"]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from lochness.errors import ConfigurationError
from lochness.placement.candidates import (
    BUILT_IN_CANDIDATE_FUNCTIONS,
    CandidateFunction,
    candidate_has_resources,
    candidate_has_subnet,
    candidate_is_alive,
    candidate_is_open,
    candidate_randomize,
    candidate_suits_group,
)

GROUP: Final = "lochness.candidates"

_BUILT_IN: Final = {getattr(function, "__name__", ""): function for function in BUILT_IN_CANDIDATE_FUNCTIONS}

#: A controller's, unless its configuration says otherwise: the library's four, cordons and groups.
CONTROLLER_CANDIDATE_FUNCTIONS: Final[tuple[CandidateFunction, ...]] = (
    candidate_is_alive,
    candidate_is_open,
    candidate_has_subnet,
    candidate_has_resources,
    candidate_suits_group,
    candidate_randomize,
)
DEFAULT_NAMES: Final = tuple(getattr(function, "__name__", "") for function in CONTROLLER_CANDIDATE_FUNCTIONS)


def load_candidate_functions(
    names: Sequence[str], *, installed: Iterable[EntryPoint] | None = None
) -> tuple[CandidateFunction, ...]:
    """The functions of these names, in this order. `installed` defaults to the entry points of GROUP on this machine.

    Raises ConfigurationError: no name at all, an unknown one (with those that there are), one whose package cannot be
    loaded, or one that is no callable.
    """
    if not names:
        raise ConfigurationError("candidate_functions names no function")
    own = {point.name: point for point in (entry_points(group=GROUP) if installed is None else installed)}
    return tuple(_BUILT_IN.get(name) or _load(name, own) for name in names)


def _load(name: str, own: dict[str, EntryPoint]) -> CandidateFunction:
    point = own.get(name)
    if point is None:
        known = ", ".join(sorted({*_BUILT_IN, *own}))
        raise ConfigurationError(f"candidate_functions: there is no function {name!r}; there are {known}")
    try:
        function: CandidateFunction = point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigurationError(f"candidate_functions: {name!r} ({point.value}) cannot be loaded: {error}") from error
    if not callable(function):
        raise ConfigurationError(f"candidate_functions: {name!r} ({point.value}) is not a function")
    return function
