"""`python -m kaos_pipelines.fetch`: the command of the `fetch` pipeline.

Environment: PACH_PFS (where the manifest is, and the output); KAOS_FETCH_CACHE, the folder of what was
fetched before, KAOS_FETCH_CACHE_BYTES of it at most; KAOS_FETCH_PARALLEL lines at a time;
KAOS_FETCH_PRIVATE=0 where nothing but public servers may be asked, and what KAOS_FETCH_ALLOW names;
KAOS_ANY_NAME where the worker gives files names that PFS can hold; credentials (`credentials`), proxies.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from kaos_formats.errors import InvalidManifest
from kaos_formats.manifest import MANIFEST_FILE, Manifest, parse_manifest
from kaos_pipelines.fetch import credentials, guard, settings
from kaos_pipelines.fetch.errors import FetchError, FetchFailed
from kaos_pipelines.fetch.fetch import fetch
from kaos_pipelines.fetch.log import FetchLog
from kaos_pipelines.fetch.output import Output


def run(env: Mapping[str, str]) -> None:
    """One fetch as the pipeline asks for it. Raises FetchFailed and FetchError."""
    pfs = Path(env.get("PACH_PFS") or "/pfs")
    manifest = _manifest(pfs / "manifest")
    found = settings.from_environment(env)
    output = Output(pfs / "out", any_name=bool(env.get("KAOS_ANY_NAME")))
    with credentials.given(env) as (shown, secrets), guard.enforced(found.policy):
        asyncio.run(fetch(manifest, output, found, shown, FetchLog(secrets)))


def _manifest(repo: Path) -> Manifest:
    files = sorted(repo.glob(f"*/{MANIFEST_FILE}"))
    if len(files) != 1:
        raise FetchError(
            f"{repo} has {len(files)} manifests: this is the command of a workspace's fetch pipeline"
        )
    return parse_manifest(files[0].read_bytes())


def main() -> int:
    """Exit code 0, or 1 with the reason as the log's last line."""
    log = FetchLog()
    try:
        run(os.environ)
    except InvalidManifest as error:
        print(error.message, flush=True)
        log.say(f"kaos: {error.message.partition(chr(10))[0]}")
    except (FetchError, FetchFailed) as error:
        log.say(f"kaos: {error}")
    except (OSError, sqlite3.Error) as error:
        log.say(f"kaos: the fetch could not write its files: {error}")
    else:
        return 0
    return 1
