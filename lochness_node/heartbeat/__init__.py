"""The lease that says this hypervisor is alive. `decide` knows what to do about the key, `shell` does it.

Shares nothing with the other daemons: no libvirt, no resources, and nothing they do can stop it.
"""
