"""Makes the training image of a source bundle: a virtual environment and the files that its Dockerfile
copies.

Layers: `main` → `executor` → `plan` → `dockerfile`, `commands`, `words` (pure); `rootfs`, `context`, `venvs`,
`pythons`, `store` do the I/O. Docker's words throughout; what the builder does not do it refuses, by line.
"""
