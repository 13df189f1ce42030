"""The Docker builder on a real engine: by BuildKit, and by the classic builder."""

from __future__ import annotations

import io
import os
import re
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import docker
import pytest
import trustme
from docker.errors import ImageNotFound
from kaos_pipelines.build import buildkit, with_docker
from kaos_pipelines.build.authorities import VARIABLES
from kaos_pipelines.build.bundle import load_bundle
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.log import BuildLog
from kaos_pipelines.build.session import NoSessions

from kaos_formats.build_secrets import variable
from kaos_formats.tree import TreeEntry, format_tree
from tests.support.docker_engine import base_image, engine_or_skip
from tests.support.registry import PASSWORD, Registry

STEPS = "WORKDIR /app\nRUN mkdir -p /opt && echo made > /opt/made\nCOPY . .\n"


class Builder:
    """Builds bundles for one test; its images go with it."""

    def __init__(self, api: docker.APIClient, folder: Path) -> None:
        self.api = api
        self.base = base_image(api)
        self.classic = False
        self._folder = folder
        self._names: list[str] = []
        self._numbers = iter(range(100))

    def bundle(self, dockerfile: str, files: Mapping[str, str] | None = None, mode: str = "755") -> Path:
        source = self._folder / f"{next(self._numbers):032x}"
        everything = {
            "train": "#!/bin/sh\n",
            "Dockerfile": dockerfile if dockerfile.startswith("FROM") else f"FROM {self.base}\n{dockerfile}",
            **(files or {}),
        }
        for path, text in everything.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(text)
        modes = [TreeEntry("train", 1, mode, "0" * 64)]
        source.with_name(f"{source.name}.tree").write_bytes(format_tree(modes))
        return source

    def __call__(
        self, source: Path, name: str = "", arguments: Mapping[str, str] | None = None
    ) -> tuple[str, dict[str, Any]]:
        image = name or f"kaos/test-{uuid.uuid4().hex}:1"
        self._names.append(image)
        return image, with_docker.build(load_bundle(source), image, os.environ, BuildLog(), arguments)

    def run(self, image: str, script: str) -> str:
        made = self.api.create_container(image, ["sh", "-c", script], host_config={"NetworkMode": "none"})[
            "Id"
        ]
        try:
            self.api.start(made)
            self.api.wait(made)
            return str(self.api.logs(made), "utf-8")
        finally:
            self.api.remove_container(made, force=True)

    def close(self) -> None:
        for name in self._names:
            try:
                self.api.remove_image(name, force=True)
            except ImageNotFound:
                continue


def no_sessions(*_: object) -> NoReturn:
    raise NoSessions


@pytest.fixture(params=["buildkit", "classic"])
def build(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Builder]:
    api = engine_or_skip()
    if request.param == "classic":
        monkeypatch.setattr(buildkit, "session", no_sessions)
    builder = Builder(api, tmp_path)
    builder.classic = request.param == "classic"
    yield builder
    builder.close()
    api.close()


def test_the_image_is_the_bundles_context(build: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    # In this order for BuildKit: a folder's files come right behind it.
    odd = {"a-b/c": "", "a.b/ü ö": "x" * 300_000}
    files = {"a/b.py": "code", "no.bin": "left out", ".dockerignore": "*.bin\n", **odd}
    source = build.bundle(STEPS, files)
    image, said = build(source)
    text = build.run(
        image,
        "pwd; ls | sort | tr '\\n' ' '; stat -c %a train a/b.py; wc -c < 'a.b/ü ö'; cat a/b.py /opt/made",
    )
    assert text == "/app\nDockerfile a a-b a.b train 755\n644\n300000\ncodemade\n"
    assert said == {
        "image": image,
        "source": source.name,
        "builder": "docker",
        "steps": [f"FROM {build.base}", *STEPS.strip().split("\n")],
    }
    log = capsys.readouterr().out
    assert f"Step 3/{4 if 'LABEL' not in log else 5} : RUN mkdir -p /opt && echo made > /opt/made\n" in log
    assert log.endswith(f"Successfully built {image}\n")

    # The same again builds nothing, other code no more than its own layer.
    build(source, image)
    assert capsys.readouterr().out == f"{image} is there already\n"
    rebuilt, _ = build(build.bundle(STEPS, {**files, "a/b.py": "other"}))
    assert " ---> Using cache" in capsys.readouterr().out
    before, after = (build.api.inspect_image(name)["RootFS"]["Layers"] for name in (image, rebuilt))
    assert (before[:-1], before[-1] == after[-1]) == (after[:-1], False)


def test_a_step_that_fails(build: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    failing = "# why\n\nRUN echo 'ERROR: no wheel' && \\\n  echo advice && exit 7\n"
    with pytest.raises(BuildError) as error:
        build(build.bundle(STEPS + failing))
    lines = (STEPS + failing).split("\n")
    line = next(number for number, text in enumerate(lines, 2) if text.startswith("RUN echo 'ERROR"))
    assert str(error.value).startswith(f"Dockerfile:{line}: RUN echo 'ERROR: no wheel' && ")
    assert str(error.value).endswith(": exit code 7: ERROR: no wheel")
    assert "advice" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("dockerfile", "mode", "message"),
    [
        ("WORKDIR /app\n", "755", "the image has no /app/train"),
        (STEPS, "644", "/app/train is not executable"),
        ("COPY nothing.txt .\n", "755", "nothing.txt"),
        ("FROM kaos-tests/nowhere:0\n", "755", "kaos-tests/nowhere"),
        ("NONSENSE here\n", "755", "NONSENSE"),
    ],
)
def test_what_cannot_be_built_leaves_no_image(
    build: Builder, dockerfile: str, mode: str, message: str
) -> None:
    image = f"kaos/test-{uuid.uuid4().hex}:1"
    with pytest.raises(BuildError, match=message):
        build(build.bundle(dockerfile, mode=mode), image)
    assert build.api.images(image) == []


def test_passwords_in_urls_stay_out_of_logs_and_reasons(
    build: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "https://ada:hunter22@example.org/simple"
    with pytest.raises(BuildError) as error:
        build(build.bundle(f"RUN echo fetching {secret} && echo ERROR: hunter22 && exit 1\n"))
    assert "hunter22" not in str(error.value) + capsys.readouterr().out


def test_build_arguments_make_an_image_of_their_own(
    build: Builder, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build.bundle(f"ARG WHAT=plain\nRUN echo $WHAT > /what\n{STEPS}")
    image = f"kaos/test-{uuid.uuid4().hex}:1"
    for arguments, what in (({"WHAT": "a $b 'c'", "NOBODY": "1"}, "a $b 'c'"), ({}, "plain")):
        made, said = build(source, f"{image}{len(arguments)}", arguments)
        assert build.run(made, "cat /what").strip() == what
        assert said.get("arguments", {}) == arguments
    assert "NOBODY" in capsys.readouterr().out
    with pytest.raises(BuildError, match=r"^Dockerfile:3: RUN echo \$WHAT && exit \$\{CODE\}: exit code 4"):
        build(build.bundle("ARG WHAT CODE=4\nRUN echo $WHAT && exit ${CODE}\n"), "", {"WHAT": "it"})


def test_steps_trust_a_company_and_the_image_knows_nothing_of_it(
    build: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    company = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(company))
    line = company.read_text().splitlines()[1]
    monkeypatch.setenv("KAOS_BUILD_CA", str(company))
    monkeypatch.setenv("HTTPS_PROXY", "http://ada:hunter22@127.0.0.1:9")
    asked = " ".join(f'"${name}"' for name in VARIABLES)
    look = f"USER ada\nRUN grep -lF {line} {asked} && cat $APT_CONFIG && echo $HTTPS_PROXY > /tmp/proxy\n"
    image, _ = build(build.bundle(f"{look}USER root\n{STEPS}"))
    log = capsys.readouterr().out
    assert len(re.findall(r"^/\S+/ca\.pem$", log, re.MULTILINE)) == len(VARIABLES)
    assert 'Acquire::https::CAInfo "/' in log
    assert "--mount" not in log
    seen = build.run(
        image,
        f"cat /tmp/proxy; env; echo found; find / -xdev -type f -name '*.*' -exec grep -lF {line} {{}} +",
    )
    assert seen.startswith("http://ada:hunter22@127.0.0.1:9\n")
    assert not {name for name in (*VARIABLES, "APT_CONFIG") if f"\n{name}=" in seen}
    # The classic builder has nowhere to put it but into a layer.
    found = seen.partition("\nfound\n")[2]
    assert found == ("/run/kaos/ca.pem\n" if build.classic else "")
    told = build.api.inspect_image(image)["Config"]["Env"], build.api.history(image)
    assert "hunter22" not in str(told)

    monkeypatch.setenv("KAOS_BUILD_CA", str(tmp_path))
    with pytest.raises(BuildError, match=f"KAOS_BUILD_CA is {tmp_path}: Is a directory"):
        build(build.bundle(STEPS, {"other": ""}))


def forget(api: docker.APIClient, *names: str) -> None:
    for name in names:
        api.remove_image(name, force=True)


def test_an_image_is_pushed_and_pulled_in_place_of_a_build(
    build: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(tmp_path / "registry", private=True)
    image = f"kaos/test-{uuid.uuid4().hex}:1"
    remote = f"{registry.address}/team/{image}"
    try:
        monkeypatch.setenv("KAOS_REGISTRY", f"{registry.address}/team")
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
        scratch = "FROM scratch\nWORKDIR /app\nCOPY . .\n"
        source = build.bundle(scratch, {"made": str(uuid.uuid4())})
        with pytest.raises(
            BuildError, match=f"cannot be pushed to .*{registry.address}/team: .*docker login"
        ):
            build(source, image)

        monkeypatch.setenv("DOCKER_CONFIG", str(registry.login(tmp_path / "ada")))
        _, pushed = build(source, image)
        made = build.api.inspect_image(image)
        assert made["RepoDigests"]
        forget(build.api, image, remote)
        capsys.readouterr()
        assert build(source, image)[1] == pushed
        log = capsys.readouterr().out
        assert log == f"pulling {remote}\n"
        assert build.api.inspect_image(image)["Id"] == made["Id"]

        # Nobody else's image is taken for it, and a registry that is gone keeps nobody from building.
        other = build.bundle(scratch, {"made": "of something else"})
        forget(build.api, image)
        build(other, image)
        replaced = build.api.inspect_image(image)
        assert replaced["Config"]["Labels"] == {"kaos.source": other.name}
        registry.close()
        forget(build.api, image, remote)
        with pytest.raises(BuildError, match="the image is built, but cannot be pushed"):
            build(other, image)
        assert build.api.inspect_image(image)["Config"]["Labels"] == replaced["Config"]["Labels"]
        assert PASSWORD not in log + capsys.readouterr().out
    finally:
        registry.close()
        forget(build.api, *(one["Id"] for one in build.api.images(remote.rpartition(":")[0])))


def tiny() -> bytes:
    """The content of an image."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(f"{uuid.uuid4()}"))
    return out.getvalue()


def test_a_private_base_image_is_pulled_with_the_users_login(
    build: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(tmp_path / "registry", private=True)
    base = f"{registry.address}/private/base"
    try:
        login = registry.login(tmp_path / "ada")
        monkeypatch.setenv("DOCKER_CONFIG", str(login))
        docker_of_ada = docker.APIClient(base_url=os.environ.get("DOCKER_HOST"), version="auto")
        docker_of_ada.import_image_from_data(tiny(), repository=base, tag="1")
        assert "error" not in docker_of_ada.push(base, "1")
        docker_of_ada.close()
        forget(build.api, f"{base}:1")
        dockerfile = f"FROM {base}:1\nWORKDIR /app\nCOPY . .\n"
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
        with pytest.raises(BuildError, match="; log in to that registry with docker login"):
            build(build.bundle(dockerfile))
        monkeypatch.setenv("DOCKER_CONFIG", str(login))
        image, _ = build(build.bundle(dockerfile))
        assert len(build.api.inspect_image(image)["RootFS"]["Layers"]) == 3
        assert PASSWORD not in capsys.readouterr().out
    finally:
        registry.close()
        forget(build.api, *(name for one in build.api.images(base) for name in one["RepoTags"]))


def test_secrets_reach_a_step_and_nothing_else(
    build: Builder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable("my.token"), "hunter22\nsecond line\n")
    show = "RUN --mount=type=secret,id=my.token"
    dockerfile = f"{STEPS}ENV NEW={uuid.uuid4()}\n{show} cat /run/secrets/my.token\n"
    source = build.bundle(f"{dockerfile}{show} [ $(wc -l < /run/secrets/my.token) = 2 ]\n")
    if build.classic:
        with pytest.raises(BuildError, match="build secrets need BuildKit"):
            build(source)
        # Only where they are asked for.
        assert build(build.bundle(STEPS))
        return
    image, said = build(source)
    log = capsys.readouterr().out
    assert "\n****\n****\n" in log
    seen = build.run(image, "env; grep -r hunter22 /app /run /etc /tmp; echo $?")
    for told in (log, seen, str(said), str(build.api.history(image)), str(build.api.inspect_image(image))):
        assert "hunter22" not in told
        assert "second line" not in told


def test_buildkit_knows_mounts(tmp_path: Path) -> None:
    api = engine_or_skip()
    builder = Builder(api, tmp_path)
    try:
        image, _ = builder(
            builder.bundle(f"{STEPS}RUN --mount=type=cache,target=/cache echo kept > /cache/x\n")
        )
        assert builder.run(image, "ls /cache | wc -l").strip() == "0"
    finally:
        builder.close()
        api.close()


def test_an_engine_that_is_down_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "Dockerfile").write_text("FROM scratch\nCOPY . .\n")
    (source / "train").write_text("")
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
    with pytest.raises(BuildError, match=r"the Docker engine does not answer: .*No such file"):
        with_docker.build(load_bundle(source), "kaos/x:1", nowhere, BuildLog())
