"""`pfs_v2.API`, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable

from kaos_backend.engine.facade.pfs.commits import CommitRpcs
from kaos_backend.engine.facade.pfs.files import FileRpcs
from kaos_backend.engine.facade.pfs.filesets import FileSetRpcs
from kaos_backend.engine.facade.pfs.modify import Modify
from kaos_backend.engine.facade.pfs.repos import RepoRpcs
from kaos_backend.engine.facade.pfs.upkeep import UpkeepRpcs
from kaos_backend.engine.facade.rpc import Handlers
from kaos_backend.engine.facade.transaction import Transactions
from kaos_backend.engine.store.store import Store


class PfsService:
    """Repos, commits and files. `project_defaults`: the JSON text of a project's pipeline defaults."""

    name = "pfs_v2.API"

    def __init__(
        self, store: Store, transactions: Transactions, project_defaults: Callable[[str], str] | None = None
    ) -> None:
        modify = Modify(store)
        files = FileRpcs(store, modify)
        self._parts = (
            RepoRpcs(store, transactions, project_defaults),
            CommitRpcs(store, transactions),
            files,
            FileSetRpcs(store, modify, files.readable),
            UpkeepRpcs(store),
        )

    def handlers(self) -> Handlers:
        found: Handlers = {}
        for part in self._parts:
            found.update(part.handlers())
        return found
