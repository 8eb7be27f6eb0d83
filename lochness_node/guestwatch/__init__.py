"""What the guests of this hypervisor are, and that they are what they should be.

`decide` compares what should be with what is and answers with actions, `desired` reads what should be from the store,
`shell` observes libvirt, performs the actions and remembers what they need to know next time.
"""
