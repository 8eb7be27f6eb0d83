"""The HTTP API of WIRE.md sections 1 to 3, and of networks, subnets, flavors and images in the same manner.

`app` puts it together, `edge` is what every request passes, `problems` says what an error looks like, `answers` what a
success looks like; the rest is one module for each kind of object.
"""
