"""Whole hosts on one machine: systemd as pid 1, Loch Ness from its packages, a switch between them, faults on demand.

Hypervisors h1, h2, ... and the management host m1 are systemd-nspawn containers. All of them, the switch and their
mounts live in one room of namespaces: when the room ends, nothing is left but files in one directory.
"""
