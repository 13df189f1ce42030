"""What follows a committed transaction."""

from __future__ import annotations

from kaos_backend.engine.store.store import Store


def test_one_that_fails_after_the_commit_holds_up_nothing(store: Store) -> None:
    called: list[str] = []

    def broken() -> None:
        raise OSError("broken")

    before = store.changes.version()
    with store.write() as txn:
        txn.create_project("there")
        txn.on_commit(broken)
        txn.on_commit(lambda: called.append("second"))
    assert called == ["second"]
    assert store.changes.version() > before
    assert "there" in [project.name for project in store.list_projects()]
