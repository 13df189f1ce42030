"""What has changed behind a manifest since it was fetched: servers are asked, nothing is downloaded.

`check` is for other programs: it asks in a process of its own, `python -m kaos_pipelines.fetch.check`,
because what guards connections holds for a whole process, and so that theirs has none of the libraries.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from kaos_formats.errors import InvalidBundle
from kaos_formats.manifest import Fetched, ManifestLine, format_sources, parse_sources

State = Literal["same", "changed", "gone", "unknown"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one line of `.sources` stands. `unknown`: its server says nothing that tells, or `why` it could not
    be asked.
    """

    url: str
    path: str
    state: State
    rev: str = ""
    why: str = ""


class CheckFailed(Exception):
    """Nothing could be asked."""


def check(
    sources: Iterable[Fetched], env: Mapping[str, str], timeout_s: float | None = None
) -> list[Finding]:
    """How each of `sources` stands, in their order. `env`: what of the fetch's environment differs from this
    process': settings and credentials.

    Raises CheckFailed, also after `timeout_s` seconds.
    """
    asked = format_sources(sources)
    command = [sys.executable, "-m", "kaos_pipelines.fetch.check"]
    try:
        done = subprocess.run(
            command,
            input=asked,
            capture_output=True,
            env={**os.environ, **env},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(f"the servers have not answered after {timeout_s:g} s") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CheckFailed(lines[-1] if lines else f"exit code {done.returncode}")
    return msgspec.json.Decoder(Finding).decode_lines(done.stdout)


async def _ask(sources: list[Fetched], env: Mapping[str, str]) -> list[Finding]:
    from kaos_pipelines.fetch import credentials, guard, settings
    from kaos_pipelines.fetch.atonce import at_once
    from kaos_pipelines.fetch.cache import Said
    from kaos_pipelines.fetch.errors import FetchError, Gone
    from kaos_pipelines.fetch.log import FetchLog
    from kaos_pipelines.fetch.remotes import remotes
    from kaos_pipelines.fetch.retries import tried

    found = settings.from_environment(env)
    states: dict[int, tuple[State, str]] = {}
    with credentials.given(env) as (shown, secrets), guard.enforced(found.policy):
        log = FetchLog(secrets)
        async with remotes(found, shown) as made:

            async def one(numbered: tuple[int, Fetched]) -> None:
                number, known = numbered
                line = ManifestLine(known.url, known.path, rev=known.rev)
                try:
                    now = await tried(lambda: made.of(line.scheme).ask(line), found, lambda _: None)
                except Gone as error:
                    states[number] = ("gone", log.mask(str(error)))
                except FetchError as error:
                    states[number] = ("unknown", log.mask(str(error)))
                else:
                    before = Said(known.size, known.etag, known.last_modified, known.version, known.commit)
                    other = now.is_other_than(before)
                    states[number] = _STATES[other], "" if other is not None else _SILENT

            await at_once(found.parallel, enumerate(sources), one)
    return [
        Finding(known.url, known.path, states[number][0], known.rev, states[number][1])
        for number, known in enumerate(sources)
    ]


_STATES: dict[bool | None, State] = {True: "changed", False: "same", None: "unknown"}
_SILENT = "its server says nothing that tells"


def _given(env: Mapping[str, str]) -> bytes:
    pfs = env.get("PACH_PFS")
    files = sorted((Path(pfs) / "sources").glob("*.sources")) if pfs else []
    return files[0].read_bytes() if files else sys.stdin.buffer.read()


def main() -> int:
    """`.sources` from the input of that name where there is one, else from standard input; findings to
    standard output, one JSON line each.
    """
    import asyncio

    from kaos_pipelines.fetch.errors import FetchError

    try:
        found = asyncio.run(_ask(parse_sources(_given(os.environ)), os.environ))
    except (FetchError, InvalidBundle, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    encode = msgspec.json.Encoder().encode
    sys.stdout.buffer.write(b"".join(encode(one) + b"\n" for one in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
