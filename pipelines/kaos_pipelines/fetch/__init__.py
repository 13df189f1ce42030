"""Fetches the files that a manifest names: the command of a workspace's `fetch` pipeline.

`main` reads the manifest and `fetch` carries it out, many lines at a time. What a line's URL is read with:
`web` (http), `objects` (s3, gs, az; fsspec), `gitrepo`, `local`. `download` brings one content, resumed,
retried and verified, by way of the `cache` that all workspaces share; `output` lays it out as a data bundle.
`guard` decides where connections may lead, `credentials` what they are made with. `check` asks what has
changed.
"""
