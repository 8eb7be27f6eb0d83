"""`python -m lochness_controller` is `lochness-controller`."""

from __future__ import annotations

from lochness_controller.main import main

main()
