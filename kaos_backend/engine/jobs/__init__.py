"""Pipelines, jobs and datums: what to run, when, and what is kept of it."""
