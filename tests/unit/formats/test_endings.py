"""Why something ended: the one line that matters, out of whatever a program prints, and its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats.endings import Code, code_of, of_program, summary
from kaos_formats.lastwords import MAX_WIDTH, last_words

PROGRAMS = {
    "import nothing_like_it": "ModuleNotFoundError: No module named 'nothing_like_it' (train, line 1)",
    "import sys\nprint('epoch 1', flush=True)\nsys.exit('the data has no labels')": "the data has no labels",
    # What the user wrote, not the library that raised it.
    "import json\ndef load():\n    return json.loads('x')\nload()": (
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0) (train, line 3)"
    ),
    # Of a chain the last: that is what ended it.
    "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('no trials\\nat all') from e": (
        "ValueError: no trials (train, line 4)"
    ),
    "def f(): f()\nf()": "RecursionError: maximum recursion depth exceeded (train, line 1)",
    "x = = 2": "SyntaxError: invalid syntax",
    "import os\nos._exit(3)": "",
    "print('\\n'.join(map(str, range(9))))\nprint('  ')\nexit(2)": "8",
    # Hostile: it would clear the terminal, set its title and colour what follows.
    r"print('\x1b[2J\x1b]0;owned\x07bad\x00 \x1b[31mnews'); exit(1)": "bad news",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_last_words_of_real_programs(tmp_path: Path, program: str) -> None:
    train = tmp_path / "train"
    train.write_text(program)
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, train], stdout=log, stderr=log, check=False)
    assert last_words((tmp_path / "log").read_text().split("\n")) == PROGRAMS[program]


@given(st.lists(st.text(), max_size=20))
def test_last_words_are_one_printable_line(said: list[str]) -> None:
    words = last_words(said)
    assert words.isprintable()
    assert len(words) <= MAX_WIDTH + 20


def test_what_kaos_itself_says_last_needs_no_name_before_it() -> None:
    assert last_words(["Traceback (most recent call last):", "E: x", "kaos: there is no train"]) == (
        "there is no train"
    )
    step = "Dockerfile:3: RUN pip install x: pip: no such wheel"
    assert last_words(["Traceback (most recent call last):", "E: x", step]) == step


TRACEBACK = ["Traceback (most recent call last):", '  File "/app/train", line 7, in <module>']
ENDINGS = {
    Code.GPU_OUT_OF_MEMORY: [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity",
        "RuntimeError: CUDA error: out of memory",
        "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate",
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor with"
        " shape[64,2] on /job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc",
    ],
    Code.OUT_OF_MEMORY: [
        "MemoryError",
        "numpy.core._exceptions._ArrayMemoryError: Unable to allocate 7.28 TiB for an array",
    ],
    Code.DISK_FULL: ["OSError: [Errno 28] No space left on device: '/pfs/out/x'"],
    Code.EXIT_CODE: ["ValueError: out of memory is what this is not", "KeyError: 'lr'"],
}


@pytest.mark.parametrize(("code", "line"), [(code, line) for code in ENDINGS for line in ENDINGS[code]])
def test_endings_are_known_by_what_frameworks_say(code: Code, line: str) -> None:
    text = of_program("exit code 1", ["epoch 1", *TRACEBACK, line], 1)
    assert code_of(text) == code
    assert text.endswith(f"{line} (train, line 7)")


def test_what_the_device_said_is_found_above_the_last_line() -> None:
    said = ["E external: failed: CUDA_ERROR_OUT_OF_MEMORY: out of memory", *TRACEBACK, "RuntimeError: Graph"]
    text = of_program("exit code 1", said, 1)
    assert text == "out of GPU memory: E external: failed: CUDA_ERROR_OUT_OF_MEMORY: out of memory"


def test_the_time_limit_of_the_trial_script_is_a_timeout() -> None:
    text = of_program("exit code 124", ["kaos: timed out after 5 s"], 124)
    assert (text, code_of(text)) == ("timed out after 5 s", Code.TIMEOUT)
    # A program's own words are not taken for it.
    assert code_of(of_program("exit code 1", ["kaos: timed out after 5 s"], 1)) == Code.EXIT_CODE


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ""),
        ("datum 1234abcd failed: out of memory: used 5 MiB of 4 MiB", Code.OUT_OF_MEMORY),
        ("datum 1234abcd failed", ""),
        ("the machine ran out of memory: used 30 GiB", Code.MACHINE_OUT_OF_MEMORY),
        ("file /x: duplicate path output by different datums", Code.OUTPUT_CONFLICT),
        ("whatever another server says", Code.FAILED),
    ],
)
def test_codes_are_read_back(text: str, code: str) -> None:
    assert code_of(text) == code


def test_many_endings_in_a_line() -> None:
    assert summary([]) == ""
    assert summary(["exit code 1: loss is 3", "exit code 1: loss is 4.5"]) == "exit code 1: loss is 3"
    assert summary(["exit code 1: a", "exit code 1: b"]) == "exit code 1"
    memory = "out of memory: used 5 MiB of 4 MiB"
    assert summary([memory, "exit code 1: a", memory]) == "out of memory (2), exit code 1 (1)"
    many = [f"{kind}: x" for kind in "abcde" for _ in range(2)]
    assert summary(many) == "a (2), b (2), c (2), others (4)"


def test_a_shells_word_for_a_signal_adds_nothing() -> None:
    killed = "killed by signal SIGSEGV"
    assert of_program(killed, ["epoch 1", "Segmentation fault (core dumped)"]) == killed
    assert of_program(killed, ["Fatal Python error: Segmentation fault"]).endswith(
        "Fatal Python error: Segmentation fault"
    )
