"""The embedded engine: a single-machine pachd that pachyderm-sdk talks to.

It imports nothing from the rest of ``kaos_backend`` and runs without it.
"""
