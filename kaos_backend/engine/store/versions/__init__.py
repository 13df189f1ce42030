"""Repos, branches and commits over trees: their rules, and what a change of one does to the others."""
