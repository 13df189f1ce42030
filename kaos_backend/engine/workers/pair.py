"""A runtime and the builder of its images as one runtime."""

from __future__ import annotations

from collections.abc import Callable

from kaos_backend.engine.workers.port import Builder, Runtime, StoredImage, Worker, WorkerSpec
from kaos_formats.images import BUILDER_IMAGE


class Pair:
    """Runs pipelines on `runtime`, and those whose image is `BUILDER_IMAGE` on `builder`."""

    def __init__(self, runtime: Runtime, builder: Builder) -> None:
        self.runtime, self.builder = runtime, builder
        self.name = runtime.name
        self.isolation = runtime.isolation
        self.notes = runtime.notes

    @property
    def own_network(self) -> bool:
        return self.runtime.own_network

    def protects_inputs(self, image: str) -> bool:
        """See `Runtime.protects_inputs`; a build runs outside of any sandbox."""
        return image != BUILDER_IMAGE and self.runtime.protects_inputs(image)

    def start_worker(self, spec: WorkerSpec) -> Worker:
        """See `Runtime.start_worker`."""
        return (self.builder if spec.image == BUILDER_IMAGE else self.runtime).start_worker(spec)

    def keep_images(self, wanted: Callable[[str], bool]) -> bool:
        """See `Runtime.keep_images`."""
        return self.runtime.keep_images(wanted)

    def stored_images(self) -> list[StoredImage]:
        """See `Runtime.stored_images`."""
        return self.runtime.stored_images()

    def image_problem(self, image: str) -> str:
        """See `Runtime.image_problem`; the builder needs no image."""
        if image != BUILDER_IMAGE:
            return self.runtime.image_problem(image)
        # Who asks has a pipeline that builds.
        self.builder.warm_up()
        return ""
