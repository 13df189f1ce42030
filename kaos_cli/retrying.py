"""``kaos train retry``: a new job for what did not succeed in another one."""

from __future__ import annotations

from kaos_cli.deploying import author
from kaos_cli.errors import OK
from kaos_cli.session import Session


def retry(
    session: Session, ws: str, ref: str, failed: bool, wait: bool, timeout_s: float | None = None
) -> int:
    """Start it, say what runs, and with ``wait`` wait for its end (at most so long); the exit code."""
    terminal, flag = session.terminal, session.flag(ws)
    answer = session.client.retry(ws, ref, failed, author(session.env))
    started = answer["status"] == "started"
    if started:
        terminal.answer(f"job     {answer['job']}  (runs {' and '.join(answer['stages'])})")
        terminal.answer(f"        what did not succeed in job {answer['of'][:8]}, on the inputs that it had")
    else:
        terminal.answer(f"nothing to run again in job {answer['of'][:8]}: {answer['message']}")
    result, code = None, OK
    if wait and started:
        from kaos_cli.watch import wait_for

        result, code = wait_for(session, ws, answer["job"], timeout_s)
    elif started:
        terminal.hint(f"kaos train logs -f{flag} follows it", f"kaos train info{flag} shows it")
    if terminal.json:
        terminal.answer_json(answer | ({"result": result} if wait else {}))
    return code
