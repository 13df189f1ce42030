"""How a build is refused."""

from __future__ import annotations

import re

from kaos_formats.masking import mask

_NO_LOGIN = re.compile(r"401 Unauthorized|no basic auth credentials|unauthorized: authentication")
USE_DOCKER = "use Docker for that (kaos up --runtime docker)"


class Refused(ValueError):
    """Why an instruction cannot be carried out; `plan` and `executor` add where it stands."""


class BuildError(Exception):
    """A build that ends here. The message says file, line, instruction and reason."""

    def __init__(
        self, reason: str, line: int | None = None, instruction: str = "", file: str = "Dockerfile"
    ) -> None:
        where = f"{file}:{line}: " if line is not None else ""
        what = instruction if len(instruction) <= 100 else f"{instruction[:99]}…"
        reason = mask(reason)
        if _NO_LOGIN.search(reason):
            reason += "; log in to that registry with docker login"
        super().__init__(f"{where}{what}: {reason}" if what else f"{where}{reason}")
        self.reason = reason
        self.line = line


def without_train(where: str) -> BuildError:
    """For an image that has no program to run."""
    return BuildError(
        f"the image has no {where}, and a trial runs ./train in the WORKDIR; "
        "add COPY . . after WORKDIR, or mend WORKDIR"
    )


def not_executable(where: str) -> BuildError:
    """For an image whose program may not be run."""
    return BuildError(f"{where} is not executable; chmod +x it in the bundle, or add RUN chmod +x train")
