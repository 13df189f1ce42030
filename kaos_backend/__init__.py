"""The kaos backend: HTTP routes and services over the Pachyderm API."""

__version__ = "0.1.0"
