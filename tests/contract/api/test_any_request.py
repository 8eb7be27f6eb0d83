"""No request that the OpenAPI document allows, nor one near it, is answered with 500, or not at all.

Some examples for each operation; `make fuzz` tries many. The controller is one of its own: the requests delete and
change whatever they meet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok

from lochness_lab.etcd import EtcdServer
from tests.contract.api.running import Api, RunningController

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
#: What takes longer hangs: a request waits for nothing but etcd.
ANSWER_LIMIT_S = 30.0


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningController]:
    with EtcdServer(tmp_path_factory.mktemp("fuzz-etcd")) as etcd:
        running = RunningController(etcd.url)
        yield running
        running.stop()


def operations(url: str) -> Iterator[schemathesis.APIOperation]:
    """Those of the document, but for the one whose answer has no end."""
    with Api(url) as api:
        document = api.get("/schema/openapi.json").json()
    for found in schemathesis.openapi.from_dict(document).exclude(path="/events").get_all_operations():
        assert isinstance(found, Ok), found.err()
        yield found.ok()


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # schemathesis uses random
@pytest.mark.timeout(max(120, EXAMPLES * 30))
def test_no_request_is_answered_with_500_or_not_at_all(fuzzed: RunningController) -> None:
    tried = 0
    for operation in operations(fuzzed.url):

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: schemathesis.Case) -> None:
            nonlocal tried
            answer = case.call(base_url=fuzzed.url, timeout=ANSWER_LIMIT_S)
            assert answer.status_code < 500, answer.text
            tried += 1

        ask()
    assert tried > 50
