"""Names: a workspace's repos, pipelines, branches, images and files, and what may be a name at all.

Every name that kaos puts into Pachyderm is made here and nowhere else; ``parse_*`` is the inverse of its
maker, so no code has to match names by substring.
"""

from __future__ import annotations

import re
from typing import Literal

from kaos_formats.errors import InvalidName

BundleKind = Literal["source", "data", "manifest"]

SOURCE: Literal["source"] = "source"
DATA: Literal["data"] = "data"
MANIFEST: Literal["manifest"] = "manifest"
HYPER = "hyper"
FETCH = "fetch"
BUILD = "build"
TRAIN = "train"
# Those that every workspace has, and all that one may have: data comes as itself or by a manifest.
ALWAYS_THERE = (SOURCE, DATA, HYPER)
INPUT_REPOS = (SOURCE, DATA, MANIFEST, HYPER)
# Beside a manifest where it is to be fetched anew: with another text in it, it is another input.
REFRESH_FILE = "refresh"
MASTER = "master"
# A variable in the spec of `train`: how many seconds train.sh gives a trial.
TIMEOUT = "KAOS_TIMEOUT"
DEFAULT_WORKSPACE = "default"

# Pachyderm: at most 51 characters, and "<project>-<pipeline>-v99" within the 63 of a Kubernetes name.
MAX_WORKSPACE_LENGTH = min(51, 63 - max(len(BUILD), len(TRAIN)) - len("--v99"))
MAX_BUNDLE_NAME_LENGTH = 128

_WORKSPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
ID_LENGTH = 32
_ID = re.compile(r"[0-9a-f]{32}")
_STAGING = re.compile(r"staging-([0-9a-f]{32})(?:-([0-9a-f]{1,16}))?")


def meta_repo(pipeline: str) -> str:
    """How Pachyderm writes the repo with what each datum of a pipeline read and wrote."""
    return f"{pipeline}.meta"


def datum_output(datum_id: str) -> str:
    """Where a datum's output is in its pipeline's meta repo, that of a failed one too."""
    return f"/pfs/{datum_id}/out"


def check_workspace(name: str) -> str:
    """``name`` itself if Pachyderm can hold a project of that name; raises InvalidName otherwise."""
    if not _WORKSPACE.fullmatch(name):
        raise InvalidName(
            f"invalid workspace name {name!r}",
            hint="use letters, digits, '-' and '_', with a letter or a digit first",
            name=name,
        )
    if len(name) > MAX_WORKSPACE_LENGTH:
        raise InvalidName(
            f"workspace name {name!r} has {len(name)} characters",
            hint=f"use at most {MAX_WORKSPACE_LENGTH} characters",
            name=name,
        )
    return name


def check_bundle_name(name: str) -> str:
    """``name`` itself if it can be shown on one line and be a folder's name; raises InvalidName otherwise."""
    if not name or name in (".", "..") or not name.isprintable() or any(c in name for c in "/\\"):
        raise InvalidName(
            f"invalid bundle name {name!r}",
            hint="a bundle is named like a folder: printable, without '/' or '\\'",
            name=name,
        )
    if len(name) > MAX_BUNDLE_NAME_LENGTH:
        raise InvalidName(
            f"bundle name of {len(name)} characters", hint=f"use at most {MAX_BUNDLE_NAME_LENGTH} characters"
        )
    return name


def is_id(text: str) -> bool:
    """Whether ``text`` has the form of a bundle, grid or job id: 32 lowercase hexadecimal digits."""
    return _ID.fullmatch(text) is not None


def staging_branch(bundle_id: str, owner: str) -> str:
    """The branch on which a bundle waits until ``owner`` deploys it; in no pipeline's provenance."""
    return f"staging-{bundle_id}-{owner}"


def parse_staging_branch(branch: str) -> tuple[str, str] | None:
    """(bundle id, owner) of a staging branch, the owner being "" where none is named; None for any other."""
    match = _STAGING.fullmatch(branch)
    return (match[1], match[2] or "") if match else None


def image_name(workspace: str, source_id: str, builder: str = "venv", variant: str = "") -> str:
    """The training image that a builder makes of a source bundle.

    Builders have names of their own for it, as have build arguments (``variant`` tells them), so that nothing
    made by one or with some is taken for the other's. The repository part is lower case, as Docker demands.
    """
    marks = [source_id, builder if builder != "venv" else "", variant]
    return f"kaos/{workspace.lower()}:{'-'.join(filter(None, marks))}"


def bundle_dir(bundle_id: str) -> str:
    """Path of a bundle's folder in its repo."""
    return f"/{bundle_id}"


def tree_path(bundle_id: str) -> str:
    """Path of a bundle's tree text in its repo, beside the folder."""
    return f"/{bundle_id}.tree"


def params_path(params_id: str) -> str:
    """Path of one trial's parameters in the hyper repo."""
    return f"/{params_id}.json"


def parse_params_path(path: str) -> str | None:
    """The params id of a path in the hyper repo, or None if it is no parameter file."""
    match = re.fullmatch(r"/([0-9a-f]{8,64})\.json", path)
    return match[1] if match else None


def model_id(source_id: str, data_id: str, params_id: str) -> str:
    """The id of the model that these three inputs make, on any machine."""
    return f"{source_id[:6]}-{data_id[:6]}-{params_id}"
