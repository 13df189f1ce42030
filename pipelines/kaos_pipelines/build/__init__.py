"""Makes the training image of a source bundle, by one of two builders.

`main` loads the `bundle` and picks: `with_docker` has a Docker engine carry out the Dockerfile
(`buildkit`, `classic`), `with_venv` needs none. Layers of the latter: `attempts` → `shell` → `tools`,
`sandbox`, where RUNs have a shell; `executor` → `plan` → `dockerfile`, `script`, `commands`,
`installers`, `words` (pure); `rootfs`, `context`, `venvs`, `installs`, `pythons`, `store` do the I/O.
Docker's words throughout; what it does not do it refuses, by line.
"""
