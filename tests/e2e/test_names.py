"""Files of any name: in data and code, below $KAOS_DATA_DIR, in models, and back."""

from __future__ import annotations

from pathlib import Path

from tests.support.bundles import write_data, write_grid, write_source
from tests.support.home import Home

DATA = {
    "my data (1).csv": b"a\n",
    "Größe_数据.csv": b"b\n",
    "new\nline": b"c\n",
    "%41": b"d\n",
    "é" * 127 + "x": b"e\n",
    # What the first of these is stored as is the name of the second.
    "[0]/(": b"f\n",
    "[0]/%28": b"g\n",
    ".kaos-names": b"h\n",
    "plain": b"i\n",
    " -*?!{}@+^ '\"\\": b"j\n",
}
BODY = """
import shutil
data = os.environ["KAOS_DATA_DIR"]
assert open(data + "/my data (1).csv").read() == "a\\n"
assert open(os.path.join(data, "Größe_数据.csv")).read() == "b\\n"
if os.path.isdir("/pfs/data"):
    assert open("/pfs/data/" + os.path.basename(data) + "/%41").read() == "d\\n"
found = {}
for folder, _, names in os.walk(data):
    for name in names:
        path = os.path.join(folder, name)
        found[os.path.relpath(path, data)] = open(path).read()
        os.makedirs(os.path.dirname(os.path.join(out, "copy", os.path.relpath(path, data))), exist_ok=True)
        shutil.copyfile(path, os.path.join(out, "copy", os.path.relpath(path, data)))
json.dump(found, open(out + "/found.json", "w"))
open(out + "/model (1).pt", "w").write("weights")
open(out + "/.kaos-names", "w").write("mine")
os.symlink(os.path.join(data, "my data (1).csv"), out + "/link é")
os.symlink(os.path.join(data, ".kaos-names"), out + "/linked")
open(out + "/metrics (x=%s).json" % params.get("x"), "w").write('{"loss": 0.5}')
open(out + "/metrics (broken).json", "w").write("{")
assert open("helper [a].txt").read() == "code"
"""


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_of_any_name(home: Home, workspace: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", DATA)
    src = write_source(tmp_path / "src", BODY)
    (src / "helper [a].txt").write_text("code")
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
    first = home.json("train", "deploy", "-w", workspace, "-s", src, "-d", data, "-h", grid, "--wait")
    trials = home.json("train", "info", "-w", workspace)["trials"]
    assert [trial["state"] for trial in trials] == ["success"] * 2
    assert [trial["metrics"]["loss"] for trial in trials] == [0.5, 0.5]
    assert all(trial["notes"][0].startswith("metrics (broken).json: ") for trial in trials)

    out = tmp_path / "out"
    home.run("train", "get", "-w", workspace, "--code", "--data", "-o", out)
    assert files(out / "data" / "data") == DATA
    assert files(out / "code" / "src") == files(src)
    for trial in trials:
        model = files(out / trial["model"])
        assert {k.removeprefix("copy/"): v for k, v in model.items() if k.startswith("copy/")} == DATA
        rest = {k: v for k, v in model.items() if not k.startswith("copy/")}
        assert rest["model (1).pt"] == b"weights"
        assert rest[".kaos-names"] == b"mine"
        assert rest["link é"] == b"a\n"
        assert rest["linked"] == b"h\n"
        x = trial["params"]["x"]
        assert set(rest) - {"metrics.json", "model.bin", "found.json"} == {
            "model (1).pt", ".kaos-names", "link é", "linked",
            f"metrics (x={x}).json", "metrics (broken).json",
        }  # fmt: skip
    best = tmp_path / "best"
    home.run("train", "get", "-w", workspace, "--model", "best", "-o", best)
    assert (next(best.iterdir()) / "model (1).pt").read_bytes() == b"weights"

    again = home.json("train", "deploy", "-w", workspace, "-s", src, "-d", data, "-h", grid)
    assert (again["status"], again["job"]) == ("unchanged", first["job"])
    # A name less and a name more: what was stored by reference to the first bundle is the second.
    (data / "[0]/(").rename(data / "(")
    home.json("train", "deploy", "-w", workspace, "-d", data, "--wait")
    home.run("train", "get", "-w", workspace, "--data", "-o", tmp_path / "second")
    assert files(tmp_path / "second" / "data" / "data") == files(data)
    assert {t["state"] for t in home.json("train", "info", "-w", workspace)["trials"]} == {"success"}


def test_a_stranger_sees_names_that_pachyderm_can_hold(home: Home, workspace: str, tmp_path: Path) -> None:
    """On the wire everything is as on any Pachyderm: escaped names, and one map beside them."""
    data = write_data(tmp_path / "data", {"plain": b"1", "my data (1).csv": b"2"})
    home.json("train", "deploy", "-w", workspace, "-s", write_source(tmp_path / "src"), "-d", data, "--wait")
    bundle = home.json("workspace", "info", workspace)["data"]["id"]
    from pachyderm_sdk.api import pfs

    repo = pfs.Repo(name="data", type="user", project=pfs.Project(name=workspace))
    commit = pfs.Commit(branch=pfs.Branch(name="master", repo=repo), repo=repo)
    found = home.client().pfs.walk_file(file=pfs.File(commit=commit, path=f"/{bundle}/"))
    paths = [info.file.path.removeprefix(f"/{bundle}/") for info in found]
    assert paths == ["", ".kaos-names", "my data %281%29.csv", "plain"]


def test_names_that_are_no_utf8_are_refused_by_name(home: Home, workspace: str, tmp_path: Path) -> None:
    src = write_source(tmp_path / "src", "open(out.encode() + b'/bad\\xff', 'w').close()")
    data = write_data(tmp_path / "data")
    (data / "broken\udcff.txt").write_bytes(b"")
    done = home.run("train", "deploy", "-w", workspace, "-s", src, "-d", data, check=False)
    assert done.returncode == 2
    assert "broken\\xff.txt" in done.stderr
    (data / "broken\udcff.txt").unlink()
    home.run("train", "deploy", "-w", workspace, "-s", src, "-d", data, "--wait", check=False)
    (trial,) = home.json("train", "info", "-w", workspace)["trials"]
    assert trial["state"] == "failed"
    assert "bad\\xff" in trial["reason"]
