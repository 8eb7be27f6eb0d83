"""An operator's own candidate function that raises ends the jobs that it raises for, and no others."""

from __future__ import annotations

from lochness.store.connect import open_store
from lochness_lab.fake_agent import FakeAgent
from tests.contract.api.running import Api, make_cluster
from tests.process.controller_process import ControllerProcess

RULES = """
def judged(guest, hypervisors):
    return [each for each in hypervisors if 1 / len(guest.guest.metadata.get("weight", "1"))]
"""


def installed(directory) -> str:
    """A package with one candidate function, as pip would leave it; answers what PYTHONPATH needs."""
    info = directory / "our_rules-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-rules\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[lochness.candidates]\njudged = our_rules:judged\n")
    (directory / "our_rules.py").write_text(RULES)
    return str(directory)


def test_the_guest_it_raises_for_fails_and_its_neighbours_are_placed(own_etcd, tmp_path):
    config = tmp_path / "controller.toml"
    config.write_text('listen = ["127.0.0.1:0"]\ncandidate_functions = ["judged", "candidate_has_subnet"]\n')
    with (
        ControllerProcess(
            tmp_path / "c", own_etcd.url, "--config", str(config), PYTHONPATH=installed(tmp_path)
        ) as controller,
        FakeAgent() as agent,
        open_store(own_etcd.url) as store,
        Api(controller.urls[0]) as api,
    ):
        controller.wait_ready()
        cluster = make_cluster(api, store, agent)
        answers = [cluster.create_guest(metadata={"weight": "" if number == 2 else "9"}) for number in range(6)]
        ends = [api.finished(answer) for answer in answers]
        assert [end["status"] for end in ends] == ["done", "done", "error", "done", "done", "done"]
        assert ends[2]["error"] == "internal error: ZeroDivisionError (the controller's log has the details)"
        assert controller.logged("daemon.pass_failed")
        assert api.finished(cluster.create_guest())["status"] == "done"
        assert cluster.violations() == ()
