"""The example projects that come with kaos: folders in the wheel, or beside the package in a checkout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kaos_cli.errors import KaosError, did_you_mean

MANIFEST = "template.json"
LEFT_OUT = frozenset({MANIFEST, "__pycache__", ".DS_Store"})


@dataclass(frozen=True, slots=True)
class Template:
    name: str
    title: str
    description: str
    path: Path

    def as_json(self) -> dict[str, str]:
        return {"name": self.name, "title": self.title, "description": self.description}


def folder() -> Path:
    """Where the templates are."""
    package = Path(__file__).resolve().parent
    installed = package / "_templates"
    return installed if installed.is_dir() else package.parent / "templates"


def available(root: Path) -> list[Template]:
    """All templates below ``root``, by name: a folder is one if it has a manifest."""
    found = []
    for manifest in sorted(root.glob(f"*/{MANIFEST}")):
        try:
            content = json.loads(manifest.read_bytes())
            found.append(
                Template(manifest.parent.name, content["title"], content["description"], manifest.parent)
            )
        except (ValueError, KeyError, TypeError) as error:
            raise KaosError("internal", f"{manifest} is broken: {error}", hint="reinstall kaos") from error
    return found


def find(root: Path, name: str) -> Template:
    """The template ``name``; raises KaosError (no_such_template) with the name that was probably meant."""
    templates = {template.name: template for template in available(root)}
    if name not in templates:
        hint = did_you_mean(name, templates)
        raise KaosError("no_such_template", f"there is no template {name!r}", hint=hint or "reinstall kaos")
    return templates[name]


def copy(template: Template, out: Path, force: bool) -> list[Path]:
    """Copy the template into ``out``; the files, relative to it. Raises KaosError (exists) rather than change
    a file that is there, unless ``force``."""
    import shutil

    from kaos_cli.extract import files_below, place, staging

    with staging(out) as staged:
        shutil.copytree(
            template.path,
            staged,
            ignore=lambda _, names: [name for name in names if name in LEFT_OUT],
            dirs_exist_ok=True,
        )
        files = files_below(staged)
        place(staged, out, force)
    return files


def next_commands(out: Path) -> str:
    """The deploy that fits what the template's folders hold."""
    parts = ["kaos train deploy"]
    for flag, names in (
        ("-s", ("model-train", "source", "src")),
        ("-d", ("data",)),
        ("-h", ("hyperopt/params.json", "hyper.json")),
    ):
        if name := next((name for name in names if (out / name).exists()), None):
            parts.append(f"{flag} {out / name}")
    return " ".join([*parts, "--wait"])
