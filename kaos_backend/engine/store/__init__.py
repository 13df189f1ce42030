"""Versioned storage: content-addressed objects, file trees, repos, branches and commits."""
