"""Guests: `plan` says what a request becomes, `seed` what cloud-init is told, `records` what is remembered of a guest;
`disks` and `iso` write files, `create` and `power` do the jobs."""
