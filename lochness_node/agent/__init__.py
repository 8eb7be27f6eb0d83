"""The HTTP service on a hypervisor that does the work on guests (WIRE.md section 6).

`service` is the process, `api` its routes, `wire` its JSON, `agent` what the routes ask for. `jobs/` runs one job at a
time per guest, `images/` keeps the checksummed base images, `guests/` turns a request into disks, a seed and a domain,
and takes them away again.
"""
