"""The per-hypervisor side of Loch Ness: heartbeat, resources, guestwatch and agent, and the one adapter to libvirt."""
