"""What the first deploy would wait for: message classes learn their fields when they are first used."""

from __future__ import annotations

from pachyderm_sdk.api import admin, pfs, pps

from kaos_backend.engine.facade.pps import convert
from kaos_backend.engine.jobs.db.pipelines import with_defaults
from kaos_backend.engine.jobs.spec.spec import Json, parse

_SPEC: Json = {
    "pipeline": {"project": {"name": "p"}, "name": "p"},
    "transform": {"cmd": ["true"], "env": {"A": "b"}},
    "parallelismSpec": {"constant": "1"},
    "resourceLimits": {"cpu": 1},
    "input": {"cross": [{"pfs": {"project": "p", "repo": "r", "glob": "/*"}}]},
    "metadata": {"annotations": {"a": "b"}},
}


def get_ready() -> None:
    """Use the classes that a deploy, and a look at it, use; some 20 ms of processor time."""
    creation = with_defaults(_SPEC, "{}", "{}", update=True, reprocess=False)
    parse(creation.effective)
    convert.request_message(creation.effective).to_dict()
    for kind in (
        pfs.StartCommitRequest,
        pfs.FinishCommitRequest,
        pfs.InspectCommitRequest,
        pfs.CommitInfo,
        pfs.RepoInfo,
        pps.PipelineInfo,
        pps.PipelineInfoDetails,
        pps.JobInfo,
        pps.JobInfoDetails,
        admin.ClusterInfo,
    ):
        kind.FromString(bytes(kind()))
