"""Pipelines, jobs and datums as rows, and what changes them inside a write transaction."""
