"""Records: WIRE.md's JSON both ways, unknown fields kept, every wrong value refused naming its field."""

from __future__ import annotations

import json

import pytest

from lochness.errors import ValidationError
from lochness.model.address import guest_mac, normalized_mac
from lochness.model.flavor import FlavorRecord
from lochness.model.fwgroup import FWGroupRecord
from lochness.model.guest import Binding, GuestRecord
from lochness.model.hypervisor import HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.job import JobRecord
from lochness.model.network import NetworkRecord
from lochness.model.record import Record
from lochness.model.resources import Resources
from lochness.model.subnet import SubnetRecord

ID = "f2011319-ad59-42fb-9bad-92e261f0651c"
OTHER = "ac258bc2-4fc4-4713-a6fd-fc1afb65cd32"

# As existing clients know them (WIRE.md sections 2 and 3), field by field in this order.
HYPERVISOR = (
    b'{"id":"abcd1234-abcd-1234-abcd-1234abcd1234","metadata":{},"ip":"10.100.101.35","netmask":"255.255.255.255",'
    b'"gateway":"10.100.101.35","mac":"01:23:45:67:89:ac","total_resources":{"memory":1024,"disk":1024,"cpu":1},'
    b'"available_resources":{"memory":1024,"disk":1024,"cpu":1}}'
)
GUEST = (
    b'{"id":"f2011319-ad59-42fb-9bad-92e261f0651c","metadata":{},"type":"","flavor":"fe6de923-7230-416e-89d7-374b4b7b9362"'
    b',"hypervisor":"e88a75a6-7ae6-487c-9634-6553d3793437","network":"ac258bc2-4fc4-4713-a6fd-fc1afb65cd32",'
    b'"subnet":"c6430cba-648a-41aa-aee4-b59dacfc790d","fwgroup":"ecf5f19a-83e3-4dff-8f03-871d0d13ae65","vlangroup":"",'
    b'"mac":"01:23:45:67:89:ac","ip":"10.10.10.28","bridge":"br0"}'
)


@pytest.mark.parametrize(("kind", "wire"), [(HypervisorRecord, HYPERVISOR), (GuestRecord, GUEST)])
def test_the_wire_form_survives_byte_for_byte(kind: type[Record], wire):
    record = kind.from_json(wire)
    record.validate()
    assert record.to_json() == wire


def test_unknown_fields_are_kept_behind_the_known_ones():
    record = GuestRecord.from_json(b'{"future":{"a":[1,2]},"id":"%s","type":"kvm"}' % ID.encode())
    record.type = ""
    written = json.loads(record.to_json())
    assert written["future"] == {"a": [1, 2]}
    assert list(written)[-1] == "future"
    assert record.patched({"bridge": "br1"}).to_fields()["future"] == {"a": [1, 2]}


def test_unknown_fields_of_a_rule_are_kept_too():
    group = FWGroupRecord.from_json(b'{"id":"%s","rules":[{"portStart":1,"portEnd":2,"stateful":true}]}' % ID.encode())
    assert json.loads(group.to_json())["rules"][0]["stateful"] is True


def test_a_patch_changes_exactly_the_named_fields():
    before = GuestRecord.from_json(GUEST)
    after = before.patched({"metadata": {"name": "web"}})
    assert after.metadata == {"name": "web"}
    assert {**after.to_fields(), "metadata": {}} == before.to_fields()
    assert before.metadata == {}


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        (GuestRecord, {"id": 5}, "id"),
        (GuestRecord, {"id": "web-1"}, "id"),
        (GuestRecord, {"flavor": "small"}, "flavor"),
        (GuestRecord, {"mac": "01:23"}, "mac"),
        (GuestRecord, {"ip": "10.0.0.256"}, "ip"),
        (GuestRecord, {"metadata": ["a"]}, "metadata"),
        (GuestRecord, {"metadata": None}, "metadata"),
        (HypervisorRecord, {"netmask": "/24"}, "netmask"),
        (HypervisorRecord, {"total_resources": {"memory": -1}}, "total_resources.memory"),
        (HypervisorRecord, {"total_resources": {"cpu": 2**32}}, "total_resources.cpu"),
        (HypervisorRecord, {"total_resources": {"disk": 1.5}}, "total_resources.disk"),
        (FlavorRecord, {"memory": "512"}, "memory"),
        (SubnetRecord, {"cidr": "10.0.0.0"}, "cidr"),
        (SubnetRecord, {"cidr": "10.0.0.0/33"}, "cidr"),
        (ImageRecord, {"format": "vmdk"}, "format"),
        (JobRecord, {"status": "maybe"}, "status"),
    ],
)
def test_a_wrong_value_is_refused_naming_the_field(kind: type[Record], fields, field):
    with pytest.raises(ValidationError) as refused:
        kind.from_fields(fields)
    assert refused.value.field == field
    assert field in str(refused.value)


NOT_OBJECTS = [b"", b"{", b'{"id":"x",}', b"[]", b"null", b"12", b'"x"', b"{} {}", b"\xff\xfe", b"nonsense"]


@pytest.mark.parametrize("text", NOT_OBJECTS)
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(ValidationError):
        GuestRecord.from_json(text)


def valid_subnet(**changes):
    return {"id": ID, "cidr": "10.0.0.0/24", "start": "10.0.0.10", "end": "10.0.0.20", "gateway": "10.0.0.1"} | changes


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        (NetworkRecord, {}, "id"),
        (GuestRecord, {"id": ID, "network": OTHER, "mac": guest_mac(ID)}, "flavor"),
        (GuestRecord, {"id": ID, "flavor": OTHER, "mac": guest_mac(ID)}, "network"),
        (GuestRecord, {"id": ID, "flavor": OTHER, "network": OTHER}, "mac"),
        (GuestRecord, {"id": ID, "flavor": OTHER, "network": OTHER, "mac": guest_mac(ID), "type": "lxc"}, "type"),
        (FlavorRecord, {"id": ID, "memory": 1, "cpu": 1}, "image"),
        (FlavorRecord, {"id": ID, "image": OTHER, "cpu": 1}, "memory"),
        (FlavorRecord, {"id": ID, "image": OTHER, "memory": 1}, "cpu"),
        (SubnetRecord, valid_subnet(cidr=""), "cidr"),
        (SubnetRecord, valid_subnet(start=""), "start"),
        (SubnetRecord, valid_subnet(end=""), "end"),
        (SubnetRecord, valid_subnet(start="10.0.1.1"), "start"),
        (SubnetRecord, valid_subnet(end="fd00::1"), "end"),
        (SubnetRecord, valid_subnet(start="10.0.0.21"), "start"),
        (SubnetRecord, valid_subnet(gateway="10.0.7.1"), "gateway"),
        (ImageRecord, {"id": ID}, "source"),
        (ImageRecord, {"id": ID, "source": "ftp://x/y"}, "source"),
        (ImageRecord, {"id": ID, "source": "http://x/y z"}, "source"),
        (ImageRecord, {"id": ID, "source": "http://x/y", "sha256": "abc"}, "sha256"),
        (ImageRecord, {"id": ID, "source": "http://x/y", "initrd": "http://x/z"}, "initrd"),
        (JobRecord, {"id": ID, "guest": OTHER, "action": "explode"}, "action"),
    ],
)
def test_what_is_unfit_to_be_saved_is_refused_naming_the_field(kind: type[Record], fields, field):
    with pytest.raises(ValidationError) as refused:
        kind.from_fields(fields).validate()
    assert refused.value.field == field


def test_validate_sees_what_was_assigned_after_reading():
    guest = GuestRecord.from_json(GUEST)
    guest.flavor = "FE6DE923-7230-416E-89D7-374B4B7B9362"
    guest.validate()
    assert guest.flavor == "fe6de923-7230-416e-89d7-374b4b7b9362"
    guest.flavor = "small"
    with pytest.raises(ValidationError):
        guest.validate()


MACS = ["01:23:45:67:89:AC", "01-23-45-67-89-ac", "0123.4567.89ac", "01:23:45:67:89:ac:de:f0", "0123.4567.89ac.def0"]
NOT_MACS = [
    "01:23:45:67:89",
    "01:23-45:67:89:ac",
    "0123.4567",
    "012345678abc",
    "g1:23:45:67:89:ac",
    "01:23:45:67:89:ac\n",
]


@pytest.mark.parametrize("text", MACS)
def test_a_mac_is_read_in_three_notations_and_two_lengths(text):
    assert normalized_mac(text).startswith("01:23:45:67:89:ac")


@pytest.mark.parametrize("text", NOT_MACS)
def test_other_macs_are_refused(text):
    with pytest.raises(ValidationError):
        normalized_mac(text)


def test_a_new_guests_mac_follows_from_its_id():
    # printf %s f2011319-ad59-42fb-9bad-92e261f0651c | md5sum
    assert guest_mac(ID) == "02:76:ed:dc:63:8e"


def test_a_finished_job_without_an_error_leaves_error_out():
    job = JobRecord(id=ID, guest=OTHER, action="fetch")
    assert "error" not in json.loads(job.to_json())
    job.error = "no"
    fields = json.loads(job.to_json())
    assert list(fields)[:8] == ["id", "remote", "action", "guest", "error", "status", "started_at", "finished_at"]
    assert fields["started_at"] == "0001-01-01T00:00:00Z"


def test_resources_never_go_below_zero():
    little, much = Resources(memory=1, disk=1, cpu=1), Resources(memory=5, disk=5, cpu=5)
    assert little.minus(much) == Resources()
    assert much.minus(little).plus(little) == much


def test_a_binding_remembers_what_the_guest_holds():
    binding = Binding.from_json(Binding(memory=1, disk=2, cpu=3).to_json())
    assert binding.claim == Resources(memory=1, disk=2, cpu=3)
