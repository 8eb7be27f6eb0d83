"""DESIGN section 6: which hypervisor is this machine, and IDs in one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lochness.errors import ValidationError
from lochness.identity import (
    get_hypervisor_id,
    is_id,
    parse_id,
    resolve_hypervisor_id,
    set_hypervisor_id,
)

NORMAL = "f2011319-ad59-42fb-9bad-92e261f0651c"
OTHER = "ac258bc2-4fc4-4713-a6fd-fc1afb65cd32"

SPELLINGS = [
    NORMAL,
    NORMAL.upper(),
    f"urn:uuid:{NORMAL}",
    f"URN:UUID:{NORMAL.upper()}",
    f"Urn:Uuid:{NORMAL}",
    f"{{{NORMAL}}}",
    f"urn:uuid:{{{NORMAL}}}",
    NORMAL.replace("-", ""),
    f"  {NORMAL}\n",
]

NOT_IDS = [
    "",
    " ",
    "hv1.example.org",
    NORMAL[:-1],
    NORMAL + "0",
    f"{{{NORMAL}",
    f"{NORMAL}}}",
    NORMAL.replace("-", "", 1),
    NORMAL.replace("f", "g", 1),
    "f2011319ad5942fb9bad92e261f0651c-",
    "f-2011319ad5942fb9bad92e261f0651c",
    "٠" * 32,
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_usual_spelling_becomes_the_normal_one(spelling):
    assert parse_id(spelling) == NORMAL
    assert is_id(spelling)


@pytest.mark.parametrize("text", NOT_IDS)
def test_anything_else_is_refused_naming_the_field(text):
    assert not is_id(text)
    with pytest.raises(ValidationError) as refused:
        parse_id(text, field="flavor")
    assert refused.value.field == "flavor"
    assert repr(text) in str(refused.value)


@given(st.uuids(), st.sampled_from(["{}", "{{{}}}", "urn:uuid:{}"]), st.booleans(), st.booleans())
def test_spelling_never_matters(uuid, form, upper, dashed):
    text = str(uuid) if dashed else uuid.hex
    if form == "{{{}}}" and not dashed:
        form = "{}"  # braces go with dashes
    spelled = form.format(text)
    assert parse_id(spelled.upper() if upper else spelled) == str(uuid)


def hostname_must_not_be_asked() -> str:
    raise AssertionError("the hostname was asked although an earlier source had a value")


def test_the_argument_comes_first():
    found = resolve_hypervisor_id(NORMAL.upper(), {"HYPERVISOR_ID": OTHER}, hostname_must_not_be_asked)
    assert found == NORMAL


@pytest.mark.parametrize("blank", ["", "  "])
def test_then_the_variable(blank):
    assert resolve_hypervisor_id(blank, {"HYPERVISOR_ID": NORMAL}, hostname_must_not_be_asked) == NORMAL


@pytest.mark.parametrize("environment", [{}, {"HYPERVISOR_ID": ""}, {"HYPERVISOR_ID": " "}])
def test_then_the_hostname(environment):
    assert resolve_hypervisor_id("", environment, lambda: NORMAL) == NORMAL


@pytest.mark.parametrize(
    ("argument", "environment", "hostname", "source"),
    [
        ("nonsense", {"HYPERVISOR_ID": NORMAL}, NORMAL, "the argument"),
        ("", {"HYPERVISOR_ID": "nonsense"}, NORMAL, "the environment variable HYPERVISOR_ID"),
        ("", {}, "kvm-host-7", "the hostname"),
    ],
)
def test_a_bad_value_is_refused_with_its_source_and_never_skipped(argument, environment, hostname, source):
    with pytest.raises(ValidationError) as refused:
        resolve_hypervisor_id(argument, environment, lambda: hostname)
    assert source in str(refused.value)
    assert refused.value.details["source"] == source


def test_a_failed_set_leaves_the_id_that_was_set_before():
    assert set_hypervisor_id(f"{{{NORMAL.upper()}}}") == NORMAL
    with pytest.raises(ValidationError):
        set_hypervisor_id("nonsense")
    assert get_hypervisor_id() == NORMAL
