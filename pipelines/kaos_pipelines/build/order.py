"""What the builders of a Docker engine are asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kaos_pipelines.build.bundle import Bundle
from kaos_pipelines.build.instructions import Written


@dataclass(frozen=True, slots=True)
class Order:
    """One build. `steps` are the Dockerfile's.

    `proxies` reach the steps as `arguments` do, and are in no layer and no history. `network`: "" for the
    engine's own choice. `authorities`: the certificates, as PEM, that steps trust; None for the image's own.
    `secrets`: values by id. `names`: what the image is called as soon as it is complete, in this order.
    """

    bundle: Bundle
    steps: Sequence[Written]
    labels: Mapping[str, str]
    arguments: Mapping[str, str]
    proxies: Mapping[str, str]
    network: str
    authorities: str | None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    names: Sequence[str] = ()
