"""The secret calls of `pps_v2.API`. Reference: pachyderm-api.md sections 14 and 16."""

from __future__ import annotations

import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pps

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.facade.convert import stamp
from kaos_backend.engine.facade.rpc import Handlers, unary
from kaos_backend.engine.jobs.db.secrets import SecretInfo
from kaos_backend.engine.jobs.service import Jobs

Context = grpc.ServicerContext


class SecretCalls:
    """What can be done to secrets; no call returns a value."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def create_secret(self, request: pps.CreateSecretRequest, _context: Context) -> Empty:
        with self._jobs.store.write() as txn:
            self._jobs.create_secret(txn, request.file)
        return Empty()

    def inspect_secret(self, request: pps.InspectSecretRequest, _context: Context) -> pps.SecretInfo:
        return _info(self._jobs.secret(_name(request)))

    def list_secret(self, _request: Empty, _context: Context) -> pps.SecretInfos:
        return pps.SecretInfos(secret_info=[_info(one) for one in self._jobs.secrets()])

    def delete_secret(self, request: pps.DeleteSecretRequest, _context: Context) -> Empty:
        name = _name(request)
        with self._jobs.store.write() as txn:
            self._jobs.delete_secret(txn, name)
        return Empty()

    def handlers(self) -> Handlers:
        return {
            "CreateSecret": unary(self.create_secret, pps.CreateSecretRequest),
            "InspectSecret": unary(self.inspect_secret, pps.InspectSecretRequest),
            "ListSecret": unary(self.list_secret, Empty),
            "DeleteSecret": unary(self.delete_secret, pps.DeleteSecretRequest),
        }


def _name(request: pps.InspectSecretRequest | pps.DeleteSecretRequest) -> str:
    if not request.is_set("secret"):
        raise InvalidArgument("validate request: secret: value is required")
    return request.secret.name


def _info(secret: SecretInfo) -> pps.SecretInfo:
    return pps.SecretInfo(
        secret=pps.Secret(name=secret.name), type=secret.type, creation_timestamp=stamp(secret.created_us)
    )
