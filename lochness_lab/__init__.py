"""Real parts on one machine: an etcd, a hypervisor with its libvirtd, a guest image.

What the demo, the tests and the benchmarks stand on.

Everything lives below a directory that the caller names and in namespaces of its own, and ends with the process that
made it, however that one ends. The product never imports this package.
"""
