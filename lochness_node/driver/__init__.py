"""The node's door to its hypervisor: a protocol, and the one adapter that speaks to libvirt.

- `protocol`: what the daemons may rely on
- `libvirt_driver`: keeps it on any libvirt; `libvirt_connection` is its connection, `deadline_calls` bounds each call
- `domain_xml`: a specification as libvirt's XML, and back
- `domain_type`: whether guests run on KVM here

Only `libvirt_driver` and `libvirt_connection` import libvirt.
"""
