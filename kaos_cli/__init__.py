"""The kaos command line: knows HTTP, the terminal and nothing of the backend."""

__version__ = "0.1.0"
