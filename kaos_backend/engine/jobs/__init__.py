"""Pipelines, jobs and datums: what to run, when, and what is kept of it.

Pure: `states`, `spec`, `validate`, `plan`, `machine`. On SQLite: `tables`, `pipelines`, `jobs`.
With threads: `admission`, `pool`, `attempt`, `jobrun`, `controller`.
"""
