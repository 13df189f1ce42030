"""Runs one jq program over messages: a process of its own, so that a program without an end ends with it.

Stands alone. Line by line: in comes the program as a JSON string, then JSON texts; out goes `ok` or why the
program is none, then for each text `1` (keep) or `0`.
"""

import json
import resource
import sys

MEMORY_BYTES = 1 << 30
CPU_S = 60


def main() -> None:
    for what, limit in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S)):
        resource.setrlimit(what, (limit, limit))
    import jq

    try:
        program = jq.compile(json.loads(sys.stdin.readline()))
        program.input_text("null")
    except ValueError as error:
        print(" ".join(str(error).split()), flush=True)
        return
    print("ok", flush=True)
    for line in sys.stdin:
        print("1" if _keeps(program, line) else "0", flush=True)


def _keeps(program: object, text: str) -> bool:
    """As pachd: the first result counts; false, null and none at all drop the message, an error does not."""
    try:
        for result in program.input_text(text):  # type: ignore[attr-defined]
            return result is not None and result is not False
    except ValueError:
        return True
    return False


if __name__ == "__main__":
    main()
