"""The names of every event that Loch Ness logs: dotted, past tense, variables as fields. docs/events.md explains each.

A name is logged on a transition (the first failure, the recovery), not on every repetition.
"""

from __future__ import annotations

from typing import Final

# Every daemon.
DAEMON_STARTED: Final = "daemon.started"
DAEMON_READY: Final = "daemon.ready"
DAEMON_RELOADED: Final = "daemon.reloaded"
DAEMON_RELOAD_FAILED: Final = "daemon.reload_failed"
DAEMON_STOPPED: Final = "daemon.stopped"
DAEMON_STOP_FAILED: Final = "daemon.stop_failed"
DAEMON_MISCONFIGURED: Final = "daemon.misconfigured"
PASS_FAILED: Final = "daemon.pass_failed"
PASS_RECOVERED: Final = "daemon.pass_recovered"

METRICS_LISTEN_FAILED: Final = "metrics.listen_failed"

# The store.
STORE_LOST: Final = "store.connection_lost"
STORE_RECOVERED: Final = "store.connection_recovered"
WATCH_LOST: Final = "store.watch_lost"
WATCH_RECOVERED: Final = "store.watch_recovered"

# heartbeat
HEARTBEAT_LEASE_GRANTED: Final = "heartbeat.lease_granted"
HEARTBEAT_LEASE_LOST: Final = "heartbeat.lease_lost"
HEARTBEAT_LEASE_REVOKED: Final = "heartbeat.lease_revoked"
HEARTBEAT_RENEW_FAILED: Final = "heartbeat.renew_failed"
HEARTBEAT_RENEW_RECOVERED: Final = "heartbeat.renew_recovered"
HEARTBEAT_AWAITS_OTHER: Final = "heartbeat.other_machine_awaited"

# Every daemon of a node.
HYPERVISOR_NOT_REGISTERED: Final = "hypervisor.not_registered"
HYPERVISOR_REGISTERED: Final = "hypervisor.registered"
SETTINGS_NEED_RESTART: Final = "daemon.settings_need_restart"

# resources
RESOURCES_WRITTEN: Final = "resources.record_written"
RESOURCES_FIGURE_STALE: Final = "resources.figure_stale"
RESOURCES_FIGURE_RECOVERED: Final = "resources.figure_recovered"
RESOURCES_CONFIG_REFUSED: Final = "resources.config_refused"

# guestwatch
GUESTWATCH_STATUS_WRITTEN: Final = "guestwatch.status_written"
GUESTWATCH_ACTION_DONE: Final = "guestwatch.action_done"
GUESTWATCH_ACTION_FAILED: Final = "guestwatch.action_failed"
GUESTWATCH_ACTION_REFUSED: Final = "guestwatch.action_refused"
GUESTWATCH_GIVEN_UP: Final = "guestwatch.guest_given_up"
GUESTWATCH_UNBOUND_DOMAIN_FOUND: Final = "guestwatch.unbound_domain_found"
GUESTWATCH_UNWANTED_GUEST_FOUND: Final = "guestwatch.unwanted_guest_found"
GUESTWATCH_ORPHAN_BINDING_FOUND: Final = "guestwatch.orphan_binding_found"
GUESTWATCH_GUEST_VANISHED: Final = "guestwatch.guest_vanished"
GUESTWATCH_NAME_TAKEN: Final = "guestwatch.name_taken"
GUESTWATCH_STRAY_STOPPED: Final = "guestwatch.stray_stopped"
GUESTWATCH_RECORD_UNREADABLE: Final = "guestwatch.record_unreadable"
GUESTWATCH_LIBVIRT_LOST: Final = "guestwatch.libvirt_lost"
GUESTWATCH_LIBVIRT_RECOVERED: Final = "guestwatch.libvirt_recovered"
GUESTWATCH_PASS_FINISHED: Final = "guestwatch.pass_finished"

# libvirt
LIBVIRT_LOST: Final = "libvirt.connection_lost"
LIBVIRT_RECOVERED: Final = "libvirt.connection_recovered"
LIBVIRT_CALL_TIMED_OUT: Final = "libvirt.call_timed_out"
LIBVIRT_DOMAIN_TYPE_CHOSEN: Final = "libvirt.domain_type_chosen"

# agent
AGENT_JOB_QUEUED: Final = "agent.job_queued"
AGENT_JOB_FINISHED: Final = "agent.job_finished"
AGENT_JOB_FAILED: Final = "agent.job_failed"
AGENT_JOB_RESUMED: Final = "agent.job_resumed"
AGENT_JOB_INTERRUPTED: Final = "agent.job_interrupted"
AGENT_JOB_BROKE: Final = "agent.job_broke"
AGENT_JOB_DELAYED: Final = "agent.job_delayed"
AGENT_JOB_UNREADABLE: Final = "agent.job_unreadable"
AGENT_JOURNAL_FAILED: Final = "agent.journal_failed"
AGENT_LISTENING: Final = "agent.listening"
AGENT_REQUEST_FAILED: Final = "agent.request_failed"
AGENT_IMAGE_DELETED: Final = "agent.image_deleted"
AGENT_CERTIFICATE_RENEWED: Final = "agent.certificate_renewed"
AGENT_CERTIFICATE_UNUSABLE: Final = "agent.certificate_unusable"

# controller
API_REQUEST_FAILED: Final = "api.request_failed"
API_MUTATION_ANSWERED: Final = "api.mutation_answered"
JOB_STARTED: Final = "job.started"
JOB_STEP_FINISHED: Final = "job.step_finished"
JOB_FINISHED: Final = "job.finished"
JOB_FAILED: Final = "job.failed"
JOB_RESUMED: Final = "job.resumed"
JOB_CANCELLED: Final = "job.cancelled"
JOB_UNDONE: Final = "job.undone"
AGENT_LOST: Final = "workers.agent_lost"
AGENT_RECOVERED: Final = "workers.agent_recovered"
HYPERVISOR_LOST: Final = "hypervisor.heartbeat_lost"
HYPERVISORS_LOST: Final = "hypervisor.many_heartbeats_lost"
HYPERVISOR_RETURNED: Final = "hypervisor.heartbeat_returned"
LEADER_CHANGED: Final = "controller.leader_changed"
JOB_LOST: Final = "job.lost"
JOB_DELAYED: Final = "job.delayed"
JOBS_PRUNED: Final = "jobs.pruned"
CONTROLLER_LEASE_GRANTED: Final = "controller.lease_granted"
CONTROLLER_LISTENING: Final = "controller.listening"
CONTROLLER_CERTIFICATE_RENEWED: Final = "controller.certificate_renewed"
CONTROLLER_CERTIFICATE_UNUSABLE: Final = "controller.certificate_unusable"
CONTROLLER_DEAD_FOUND: Final = "controller.dead_one_found"
GUEST_PLACED: Final = "scheduler.guest_placed"
PLACEMENT_REFUSED: Final = "scheduler.placement_refused"
PLACEMENT_CONFLICTED: Final = "scheduler.placement_conflicted"
