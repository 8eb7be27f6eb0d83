"""For any record: JSON and back loses nothing, whatever else stands in it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from lochness.model.flavor import FlavorRecord
from lochness.model.fwgroup import FWGroupRecord, FWRule
from lochness.model.guest import Binding, GuestRecord, GuestStatus, PowerRecord
from lochness.model.hypervisor import HeartbeatRecord, HypervisorRecord
from lochness.model.image import ImageRecord
from lochness.model.job import JOB_ACTIONS, JobRecord
from lochness.model.network import NetworkRecord
from lochness.model.record import Record
from lochness.model.resources import Resources, ResourcesRecord
from lochness.model.subnet import SubnetRecord
from lochness.model.vlan import MAX_TAG, MIN_TAG, VLANGroupRecord, VLANRecord

ids = st.uuids().map(str)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
metadata = st.dictionaries(texts, texts, max_size=3)
quantities = st.integers(0, 2**63 - 1)
small_quantities = st.integers(0, 2**32 - 1)
macs = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))
ips = st.ip_addresses().map(str)
resources = st.builds(Resources, memory=quantities, disk=quantities, cpu=small_quantities)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)

networks = st.ip_addresses().map(lambda address: f"{address}/{address.max_prefixlen}")
rules = st.builds(
    FWRule,
    source=st.none() | networks,
    group=st.just("") | ids,
    port_start=st.integers(0, 9),
    port_end=st.integers(9, 99),
)

records: st.SearchStrategy[Record] = st.one_of(
    st.builds(NetworkRecord, id=ids, metadata=metadata),
    st.builds(FWGroupRecord, id=ids, metadata=metadata, rules=st.lists(rules, max_size=3)),
    st.builds(VLANRecord, tag=st.integers(MIN_TAG, MAX_TAG), description=texts),
    st.builds(VLANGroupRecord, id=ids, description=texts, metadata=metadata),
    st.builds(JobRecord, id=ids, guest=ids, action=st.sampled_from(JOB_ACTIONS), error=texts, progress=texts),
    st.builds(Binding, memory=quantities, disk=quantities, cpu=quantities, placed_at=texts),
    st.builds(GuestStatus, state=st.sampled_from(["running", "stopped"]), reason=texts, since=texts),
    st.builds(PowerRecord, desired=st.sampled_from(["running", "stopped", "paused"])),
    st.builds(HeartbeatRecord, host=texts, pid=quantities, since=texts),
    st.builds(ResourcesRecord, total=resources, available=resources, guest_overhead_mb=quantities),
    st.builds(
        FlavorRecord, id=ids, image=ids, metadata=metadata, memory=quantities, disk=quantities, cpu=small_quantities
    ),
    st.builds(ImageRecord, id=ids, metadata=metadata, source=texts, size=quantities, cmdline=texts),
    st.builds(SubnetRecord, id=ids, metadata=metadata, network=ids, gateway=ips, start=ips, end=ips),
    st.builds(GuestRecord, id=ids, metadata=metadata, flavor=ids, network=ids, mac=macs, ip=ips, bridge=texts),
    st.builds(
        HypervisorRecord,
        id=ids,
        metadata=metadata,
        ip=ips,
        mac=macs,
        total_resources=resources,
        available_resources=resources,
    ),
)


@given(records)
def test_json_and_back_is_the_same_record(record):
    assert type(record).from_json(record.to_json()) == record


@given(records, st.dictionaries(texts.map(lambda text: f"x-{text}"), json_values, max_size=3))
def test_unknown_fields_survive_reading_changing_and_writing(record, unknown):
    data = json.dumps({**record.to_fields(), **unknown})
    read = type(record).from_json(data)
    if hasattr(read, "id"):
        read.id = "f2011319-ad59-42fb-9bad-92e261f0651c"
    written = json.loads(read.to_json())
    assert {name: written[name] for name in unknown} == unknown
    assert list(written)[: len(record.to_fields())] == list(record.to_fields())


@given(records)
def test_the_json_is_that_of_the_fields(record: Record):
    assert json.loads(record.to_json()) == json.loads(json.dumps(record.to_fields()))
    assert list(json.loads(record.to_json())) == list(record.to_fields())


@given(ids, st.text(max_size=5).map(lambda text: f'{text}"error":"",'))
def test_a_job_leaves_out_its_own_empty_error_and_no_other(id: str, text: str):
    told = {"error": "", text: text}
    job = JobRecord(id=id, guest=id, remote=text, action=text, error="", progress=text, explanation=told)
    fields = json.loads(job.to_json())
    assert "error" not in fields
    assert fields == {name: value for name, value in job.to_fields().items() if name != "error"}
    assert JobRecord.from_json(job.to_json()).explanation == told


@given(records, st.dictionaries(texts, json_values, max_size=3))
def test_a_copy_with_other_fields_keeps_the_unknown_ones_and_leaves_the_first_as_it_was(
    record: Record, more: dict[str, object]
):
    with_more = type(record).from_fields({**record.to_fields(), **{f"x-{name}": more[name] for name in more}})
    before = with_more.to_json()
    name = type(record).__struct_fields__[0]
    copied = with_more.with_fields(**{name: getattr(record, name)})
    assert copied.to_json() == before
    copied.with_fields(**{name: None})
    assert copied.to_json() == with_more.to_json() == before
