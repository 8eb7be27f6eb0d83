"""Which type of domain is chosen where the self-test has no say. (tests/process runs the self-test itself.)"""

from __future__ import annotations

import json

import pytest

from lochness_node.driver.domain_type import choose_domain_type
from lochness_node.driver.protocol import HostFacts


def host(hypervisor="qemu", arch="x86_64", domain_types=("qemu", "kvm")):
    return HostFacts(
        hypervisor=hypervisor,
        hostname="h",
        arch=arch,
        memory_mb=1024,
        cpus=1,
        domain_types=frozenset(domain_types),
        machines=frozenset(),
    )


@pytest.mark.parametrize("setting", ["auto", "kvm", "qemu"])
def test_the_test_driver_has_one_type_only(setting):
    assert choose_domain_type(setting, host("test", "i686", ("test",))).domain_type == "test"


@pytest.mark.parametrize("setting", ["kvm", "qemu"])
def test_the_configuration_is_obeyed(setting):
    chosen = choose_domain_type(setting, host(domain_types=("qemu",)))
    assert (chosen.domain_type, chosen.reason) == (setting, "the configuration says so")


def test_without_kvm_on_offer_it_is_not_tried():
    chosen = choose_domain_type("auto", host(domain_types=("qemu",)))
    assert (chosen.domain_type, chosen.reason) == ("qemu", "libvirt offers no kvm on this host")


def test_an_architecture_without_a_self_test_is_emulated():
    assert choose_domain_type("auto", host(arch="aarch64")).domain_type == "qemu"


def test_the_self_tests_answer_is_kept_for_this_boot(tmp_path):
    cache = tmp_path / "kvm-self-test.json"
    first = choose_domain_type("auto", host(), cache)
    kept = json.loads(cache.read_bytes())
    assert kept["works"] == (first.domain_type == "kvm")
    cache.write_text(json.dumps({**kept, "works": not kept["works"], "reason": "as it was written here"}))
    again = choose_domain_type("auto", host(), cache)
    assert again.domain_type != first.domain_type
    assert again.reason.startswith("as it was written here")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tested_on": "another boot", "works": true, "reason": "x"}'])
def test_an_answer_that_is_damaged_or_of_another_boot_is_not_believed(tmp_path, content):
    cache = tmp_path / "kvm-self-test.json"
    cache.write_text(content)
    chosen = choose_domain_type("auto", host(), cache)
    assert chosen == choose_domain_type("auto", host())
    assert json.loads(cache.read_bytes())["tested_on"] != "another boot"
