"""The formats and rules that the programs share: command line, backend, engine and what runs in pipelines.

Each has one writer, one reader and one test here. Imports none of the programs, and at start nothing that the
command line would have to wait for.
"""
