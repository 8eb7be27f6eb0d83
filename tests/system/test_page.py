"""The page in a real Chromium, on a real controller with its etcd and simulated hypervisors.

Nothing is loaded anew in a test, unless it says so: what is seen comes by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from bench.fleet import Fleet
from lochness import keys
from lochness.ids import new_id
from lochness.model.guest import GuestStatus
from lochness.model.job import rfc3339
from lochness.model.resources import Resources, ResourcesRecord
from lochness.store.connect import open_store
from lochness.store.protocol import Put, Store
from lochness.tokens import create_token, delete_token, new_token
from lochness_lab.browser import DESK, PHONE, Browser
from lochness_lab.etcd import EtcdServer
from tests.contract.api.running import Api, RunningController
from tests.system.contrast import poor_contrasts

TOTAL = Resources(memory=64_000, disk=1_000_000, cpu=32)
FREE = Resources(memory=16_000, disk=500_000, cpu=20)
TOO_LARGE_MB = 900_000

HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\">",
    "\"><script>document.title='owned'</script>",
    "</title></table><svg onload=\"document.title='owned'\">",
    "{{7*7}} ${7*7} &lt;b&gt; \u202esdrawkcab\u202c",
)


@dataclass(slots=True)
class Site:
    """A controller and what it rules."""

    controller: RunningController
    etcd_url: str
    store: Store
    fleet: Fleet
    api: Api
    hosts: list[str]
    huge: str = ""

    def start_controller(self) -> None:
        """Another one, where the one before was."""
        self.controller = RunningController(self.etcd_url, listen=self.controller.url.removeprefix("http://"))

    def ask_for(self, name: str, flavor: str = "") -> Any:
        """The answer to a guest's POST."""
        body = {"flavor": flavor or self.fleet.flavor, "network": self.fleet.network, "metadata": {"name": name}}
        return self.api.post("/guests", json=body)

    def running(self, name: str) -> dict[str, Any]:
        """A guest that is created and seen running."""
        answer = self.ask_for(name)
        assert self.api.finished(answer)["status"] == "done"
        guest: dict[str, Any] = self.api.get(f"/guests/{answer.json()['id']}").json()
        self.see(guest, "running")
        return guest

    def see(self, guest: dict[str, Any], state: Any, reason: str = "") -> None:
        """What the guestwatch of its hypervisor writes."""
        status = GuestStatus(
            state=state, reason=reason, since=rfc3339(datetime.now(UTC)), hypervisor=guest["hypervisor"]
        )
        self.store.commit((), (Put(keys.guest_status(guest["id"]), status.to_json()),))

    def refused(self, name: str) -> dict[str, Any]:
        """The failed job of a guest that no host can take."""
        job = self.api.finished(self.ask_for(name, self.huge))
        assert job["status"] == "error"
        return job

    def clear(self) -> None:
        """Delete every guest."""
        for guest in self.api.get("/guests").json():
            self.api.finished(self.api.delete(f"/guests/{guest['id']}"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with (
        EtcdServer(tmp_path_factory.mktemp("page-etcd")) as etcd,
        open_store(etcd.url) as store,
        Fleet(store, 3) as fleet,
    ):
        controller = RunningController(etcd.url)
        with Api(controller.url) as api:
            site = Site(controller, etcd.url, store, fleet, api, list(fleet.agents))
            for number, host in enumerate(site.hosts, 1):
                assert api.patch(f"/hypervisors/{host}", json={"metadata": {"name": f"kvm{number}"}}).status_code == 200
                report(store, host, FREE)
            named = {"metadata": {"name": "small"}}
            assert api.patch(f"/flavors/{fleet.flavor}", json=named).status_code == 200
            fields = {"image": fleet.image, "memory": TOO_LARGE_MB, "disk": 1, "cpu": 1, "metadata": {"name": "huge"}}
            site.huge = api.made("/flavors", fields)["id"]
            yield site
        site.controller.stop()


def report(store: Store, host: str, available: Resources) -> None:
    """What the resources daemon of the host writes."""
    record = ResourcesRecord(total=TOTAL, available=available)
    store.commit((), (Put(keys.hypervisor_resources(host), record.to_json()),))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(chromium: Browser, site: Site) -> Iterator[Browser]:
    """The page, live, on a desk. The console must have nothing to complain of in the end: no error, no breach of the
    policy; that a record is gone is none."""
    chromium.show_as(DESK)
    chromium.open(site.controller.url)
    chromium.wait_for("#connection", "live")
    chromium.wait_for("#hosts tbody", "kvm1")
    chromium.complaints()
    yield chromium
    site.clear()
    assert [each for each in chromium.complaints() if "404 (Not Found)" not in each] == []


def row(section: str, id: str) -> str:
    return f'#{section} tr[data-id="{id}"]'


def test_hosts_with_their_load_and_their_heartbeat_come_by_themselves(page, site):
    first = site.hosts[0]
    assert "46.9 GB of 62.5 GB" in page.text(row("hosts", first))
    assert "12 of 32" in page.text(row("hosts", first))
    assert "alive beats for" in page.text(row("hosts", first))

    report(site.store, first, Resources(memory=8_000, disk=500_000, cpu=4))
    page.wait_for(row("hosts", first), "54.7 GB of 62.5 GB", "28 of 32")

    new = new_id()
    site.api.made("/hypervisors", {"id": new, "metadata": {"name": "brand-new"}})
    page.wait_for(row("hosts", new), "brand-new", "not alive", "not reported")
    page.wait_for("#problems", "1 host is not alive", "brand-new")
    site.store.commit((), (Put(keys.hypervisor_heartbeat(new), b"{}"),))
    page.wait_for(row("hosts", new), "alive", "beats")
    page.wait_for("#events ol", "host brand-new beats")
    site.api.patch(f"/hypervisors/{new}/config", json={"cordoned": "new disks"})
    page.wait_for(row("hosts", new), "cordoned")
    assert site.api.delete(f"/hypervisors/{new}").status_code == 200
    page.wait_until_gone(row("hosts", new))


def test_a_guest_is_seen_from_its_request_to_its_end(page, site):
    for agent in site.fleet.agents.values():
        agent.hold("create")
    answer = site.ask_for("web-1")
    id = answer.json()["id"]
    page.wait_for(row("guests", id), "web-1", "being created", "kvm", "10.0.0.", "small", "create: at work")
    page.wait_for("#jobs tbody", "web-1", "working", "create")
    for agent in site.fleet.agents.values():
        agent.release()
    site.api.finished(answer)
    guest = site.api.get(f"/guests/{id}").json()
    site.see(guest, "running")
    page.wait_for(row("guests", id), "running", "create: done")
    site.see(guest, "crashed", "qemu was killed")
    page.wait_for(row("guests", id), "crashed", "qemu was killed")
    page.wait_for("#problems", "1 guest has crashed web-1")
    page.wait(lambda: page.driver.title == "(1) Loch Ness", "number of problems in the title")
    page.wait_for("#events ol", "guest web-1 is crashed (qemu was killed)", "create of guest web-1 is done")
    site.api.finished(site.api.delete(f"/guests/{id}"))
    page.wait_until_gone(row("guests", id))
    page.wait_for("#problems", "Nothing is wrong.")


def test_a_guest_without_a_place_leads_to_the_reason(page, site):
    job = site.refused("elephant")
    page.wait_for("#problems", "1 guest has no place", "elephant")
    page.wait_for(row("jobs", job["id"]) + " .error", " ".join(job["error"].split()))  # seen without opening anything
    page.click(row("guests", job["guest"]) + " button")  # its last job, which opens
    assert page.run("return document.activeElement.id") == "jobs"
    text = page.wait_for("#jobs .explanation", "Why no host could take it", "Nearest misses")
    assert "has resources 3 0 3 insufficient memory: 3" in text
    assert f"insufficient_memory: wanted {TOO_LARGE_MB} MB, had" in text
    assert "kvm1" in text
    page.wait_for("#capacity tbody", "huge", "none", "insufficient memory: 3")


def test_an_age_goes_on_while_nothing_happens(page, site):
    age = row("guests", site.running("calm")["id"]) + " time"
    before = page.wait_for(age, " s")
    page.wait(lambda: page.text(age) not in ("", before), f"an age other than {before}", age)


def test_names_are_text_whatever_they_are(page, site):
    guests = [site.running(name) for name in HOSTILE]
    for guest, name in zip(guests, HOSTILE, strict=True):
        page.wait_for(row("guests", guest["id"]), " ".join(name.split()))
        page.wait_for("#events ol", f"guest {' '.join(name.split())} is running")
    for name in HOSTILE:
        site.refused(name)
    page.wait_for("#problems", *(" ".join(name.split()) for name in HOSTILE))
    assert page.run("return document.querySelectorAll('main img, main script, main svg, main b').length") == 0
    assert "owned" not in page.driver.title


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_everything_is_to_be_read_in_light_and_dark_on_a_desk_and_a_phone(page, site, size, scheme):
    guest = site.running("a-guest-with-quite-a-long-name-" + "x" * 40)
    site.see(guest, "crashed", "because")
    job = site.refused("elephant")
    page.show_as(size, scheme)
    page.click(row("jobs", job["id"]) + " .open button")
    page.wait_for("#jobs .explanation", "Nearest misses")
    page.wait_for("#problems", "crashed", "no place")
    backdrop = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (backdrop == "rgb(245, 247, 248)") == (scheme == "light")
    width = page.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width == [size[0], size[0]] or width[0] == width[1] < size[0]
    assert poor_contrasts(page) == []


def test_everything_is_reached_by_keyboard(page, site):
    job = site.refused("elephant")
    page.wait_for(row("jobs", job["id"]), "failed")
    opener = row("jobs", job["id"]) + " .open button"
    reached: list[str] = []

    def is_there(selector: str) -> bool:
        return bool(page.run("return document.activeElement === document.querySelector(arguments[0])", selector))

    page.press("TAB")
    assert is_there(".skip")
    for _ in range(200):
        page.press("TAB")
        reached.append(page.run("return document.activeElement.textContent || document.activeElement.id"))
        outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"the focus is not to be seen on {reached[-1]}"
        if is_there(opener):
            break
    assert is_there(opener), reached
    assert reached[:6] == ["Hosts", "Guests", "Jobs", "Capacity", "Events", "Token"]
    assert {"hosts-filter", "guests-wrong", "State"} <= set(reached)
    page.press("ENTER")
    page.wait_for("#jobs .explanation", "Nearest misses")
    assert page.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
    # What happens meanwhile takes the focus from nobody.
    guest = site.running("meanwhile")
    page.wait_for(row("jobs", site.api.get("/jobs", params={"guest": guest["id"]}).json()[0]["id"]), "done")
    assert is_there(opener)
    page.press("ENTER")
    page.wait_until_gone("#jobs .explanation")


def test_lists_are_filtered_and_sorted(page, site):
    for name in ("alpha", "beta", "gamma"):
        site.running(name)
    page.wait_for("#guests tbody", "alpha", "beta", "gamma")
    page.element("#guests-filter").send_keys("BET runn")
    page.wait_for("#guests .shown", "1 of 3 guests")
    assert "beta" in page.text("#guests tbody")
    assert "alpha" not in page.text("#guests tbody")
    page.element("#guests-filter").send_keys(" nothing of this kind")
    page.wait_for("#guests .empty", "No guest matches.")
    page.element("#guests-filter").clear()
    page.wait_for("#guests .shown", "3 guests")
    head = "#guests thead th:first-child"
    page.click(f"{head} button")
    page.click(f"{head} button")
    page.wait(lambda: page.element(head).get_attribute("aria-sort") == "descending", "descending order")
    assert page.text("#guests tbody").index("gamma") < page.text("#guests tbody").index("alpha")
    page.element("#guests-wrong").click()
    page.wait_for("#guests .empty", "No guest matches.")


def test_a_controller_that_is_away_is_told_and_nothing_is_missed(page, site):
    guest = site.running("steady")
    page.wait_for(row("guests", guest["id"]), "running")
    site.controller.stop()
    page.wait_for("#connection", "not reached since")
    page.wait_for("#problems", "What is below is old")
    assert "steady" in page.text("#guests tbody")
    site.see(guest, "paused")
    site.start_controller()
    page.wait_for("#connection", "live")
    page.wait_for(row("guests", guest["id"]), "paused")
    page.wait_for("#events ol", "guest steady is paused")
    page.complaints()  # of connections refused


def test_without_a_token_it_asks_for_one_and_a_refused_one_is_told(chromium, site):
    guest = site.running("secret-1")
    record, text = new_token("page", "read", datetime.now(UTC))
    create_token(site.store, record)
    guarded = RunningController(site.etcd_url, require_tokens=True)
    try:
        chromium.show_as(DESK)
        chromium.open(guarded.url)
        chromium.wait_for("#connection", "a token is needed")
        assert chromium.run("return document.activeElement.id") == "token"
        chromium.press("lnt_wrong", "ENTER")
        chromium.wait_for("#connection", "token refused")
        assert "secret-1" not in chromium.text("main")
        chromium.press(text, "ENTER")
        chromium.wait_for("#connection", "live")
        chromium.wait_for(row("guests", guest["id"]), "secret-1", "running")
        kept = chromium.run("return [JSON.stringify({...localStorage}), document.cookie, location.href]")
        assert not any(text in each for each in kept)
        delete_token(site.store, record.id)
        chromium.click("#access summary")
        chromium.click("#forget")
        chromium.wait_for("#connection", "a token is needed")
        assert chromium.run("return sessionStorage.length") == 0
    finally:
        guarded.stop()
        site.clear()
        chromium.complaints()  # of 401
