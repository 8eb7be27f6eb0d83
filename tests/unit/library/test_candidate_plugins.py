"""Candidate functions by name: built in, or an operator's own by entry point."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from lochness.candidate_plugins import CONTROLLER_CANDIDATE_FUNCTIONS, DEFAULT_NAMES, GROUP, load_candidate_functions
from lochness.errors import ConfigurationError
from lochness.placement.candidates import DEFAULT_CANDIDATE_FUNCTIONS

HERE = "tests.unit.library.test_candidate_plugins"


def keep_none(_request, _hypervisors):
    return []


NOT_CALLABLE = 7
INSTALLED = [
    EntryPoint("keep_none", f"{HERE}:keep_none", GROUP),
    EntryPoint("broken", "no_such_package:function", GROUP),
    EntryPoint("missing", f"{HERE}:no_such_function", GROUP),
    EntryPoint("number", f"{HERE}:NOT_CALLABLE", GROUP),
]


def test_a_controllers_functions_are_the_librarys_with_cordons_and_groups():
    functions = load_candidate_functions(DEFAULT_NAMES)
    assert functions == CONTROLLER_CANDIDATE_FUNCTIONS
    assert [each for each in functions if each in DEFAULT_CANDIDATE_FUNCTIONS] == list(DEFAULT_CANDIDATE_FUNCTIONS)


def test_an_operators_own_stands_where_it_is_named():
    first, second = load_candidate_functions(["keep_none", "candidate_is_alive"], installed=INSTALLED)
    assert first(None, [1, 2]) == []  # type: ignore[arg-type, list-item]
    assert second is DEFAULT_CANDIDATE_FUNCTIONS[0]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "names no function"),
        (["only_ssd"], "there is no function 'only_ssd'; there are broken, candidate_has_resources"),
        (["broken"], "'broken' (no_such_package:function) cannot be loaded"),
        (["missing"], "cannot be loaded"),
        (["number"], "is not a function"),
    ],
)
def test_what_cannot_be_had_is_one_clear_line(names, text):
    with pytest.raises(ConfigurationError) as refused:
        load_candidate_functions(names, installed=INSTALLED)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
