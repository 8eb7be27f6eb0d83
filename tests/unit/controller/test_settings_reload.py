"""What a reload of the controller may change."""

from __future__ import annotations

from lochness_controller.settings import RELOADABLE, ControllerSettings, take_over


def test_limits_are_taken_over_and_the_rest_is_named():
    settings = ControllerSettings()
    new = ControllerSettings(job_kept_s=60.0, log_level="debug", jobs_running=7, agent_port=9)
    assert take_over(settings, new) == ["jobs_running", "agent_port"]
    assert (settings.job_kept_s, settings.log_level) == (60.0, "debug")
    assert settings.jobs_running == ControllerSettings().jobs_running


def test_every_reloadable_one_exists():
    assert set(RELOADABLE) <= set(ControllerSettings.__struct_fields__)
