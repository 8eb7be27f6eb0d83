"""Guests: `plan` says what a request becomes, `seed` what cloud-init is told, `records` what is remembered of a guest;
`disks` and `iso` write files; `create`, `power` and `snapshots` do the jobs; `show`, `metrics`, `download` only look.
"""
