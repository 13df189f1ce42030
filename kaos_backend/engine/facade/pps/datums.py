"""The datum calls of `pps_v2.API`. Reference: pachyderm-api.md sections 11 and 14."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import betterproto
import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pps

from kaos_backend.engine.errors import EngineError, Unknown
from kaos_backend.engine.facade.convert import at_most
from kaos_backend.engine.facade.pps import convert
from kaos_backend.engine.facade.rpc import Handlers, bidirectional, server_stream, unary
from kaos_backend.engine.jobs.db.rows import DatumRow
from kaos_backend.engine.jobs.schedule.states import DONE_DATUMS, DatumState
from kaos_backend.engine.jobs.service import Jobs
from kaos_backend.engine.jobs.spec.plan import Datum
from kaos_backend.engine.jobs.spec.spec import canonical, parse

_DEFAULT_BATCH = 100


_D = TypeVar("_D", Datum, DatumRow)


def _page(request: pps.ListDatumRequest, datums: list[_D], state: Callable[[_D], DatumState]) -> list[_D]:
    """Those of `datums` that the request asks for."""
    states = {int(wanted) for wanted in request.filter.state}
    found = [datum for datum in datums if not states or int(state(datum)) in states]
    if request.reverse:
        found.reverse()
    if marker := request.pagination_marker:
        found = [d for d in found if (d.id < marker if request.reverse else d.id > marker)]
    return found[: at_most(request.number)]


class DatumCalls:
    """Everything that reads or restarts datums."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def inspect_datum(self, request: pps.InspectDatumRequest, _context: grpc.ServicerContext) -> bytes:
        if not request.datum.id:
            raise Unknown("must specify a datum")
        if not request.datum.job.id:
            raise Unknown("must specify a job")
        key = convert.job_key(request.datum.job)
        job = self._jobs.job(key)
        datum = self._jobs.find_datum(job, request.datum.id)
        if datum is None or datum.state not in DONE_DATUMS:
            raise Unknown(f"datum {request.datum.id} not found in job {key}")
        return convert.datum_info_encoder(job, self._jobs.image(job))(datum)

    def list_datum(self, request: pps.ListDatumRequest, _context: grpc.ServicerContext) -> Iterator[bytes]:
        by_input = request.is_set("input") and betterproto.serialized_on_wire(request.input)
        if request.job.id and by_input:
            raise Unknown("cannot specify both job and input")
        if by_input:
            planned = self._enumerate(request.input)
            encode_planned = convert.planned_datum_info_encoder()
            yield from map(encode_planned, _page(request, planned, lambda _: DatumState.UNKNOWN))
        else:
            job = self._jobs.job(convert.job_key(request.job))
            done = [row for row in self._jobs.datums(job) if row.state in DONE_DATUMS]
            encode = convert.datum_info_encoder(job, self._jobs.image(job))
            yield from map(encode, _page(request, done, lambda row: row.state))

    def _enumerate(self, message: pps.Input) -> list[Datum]:
        node = parse(canonical({"input": message.to_dict()})).input
        if node is None:
            raise Unknown("no input set")
        return self._jobs.enumerate(node)

    def create_datum(
        self, requests: Iterator[pps.CreateDatumRequest], _context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        first = next(requests, None)
        if first is None or betterproto.which_one_of(first, "body")[0] != "start":
            raise Unknown("first message must be a StartCreateDatumRequest message")
        datums = iter(self._enumerate(first.start.input))
        encode = convert.planned_datum_info_encoder()
        number = first.start.number
        while True:
            for _ in range(at_most(number) or _DEFAULT_BATCH):
                datum = next(datums, None)
                if datum is None:
                    return
                yield encode(datum)
            following = next(requests, None)
            if following is None:
                return
            number = following.continue_.number

    def restart_datum(self, request: pps.RestartDatumRequest, _context: grpc.ServicerContext) -> Empty:
        key = convert.job_key(request.job)
        if not self._jobs.restart_datum(key, list(request.data_filters)):
            filters = " ".join(request.data_filters)
            raise EngineError(f"datum matching filter [{filters}] could not be found for job ID {key.id}")
        return Empty()

    def handlers(self) -> Handlers:
        return {
            "InspectDatum": unary(self.inspect_datum, pps.InspectDatumRequest),
            "ListDatum": server_stream(self.list_datum, pps.ListDatumRequest),
            "CreateDatum": bidirectional(self.create_datum, pps.CreateDatumRequest),
            "RestartDatum": unary(self.restart_datum, pps.RestartDatumRequest),
        }
