"""The central process: its HTTP API, the scheduler that places guests, and the workers that carry out jobs."""
