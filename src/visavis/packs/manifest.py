"""The manifest of a pack: its pretrained parts, their licences and the hash of every file."""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from visavis import s3
from visavis.errors import VisavisError
from visavis.files import read_json, sha256_bytes, sha256_file, sha256_once, write_atomic, write_json

MANIFEST_NAME, CARD = "manifest.json", "card.md"
"""Names of the manifest and of the pack's card in its root folder."""

_BUNDLED = Path(__file__).parent


def _relative(path: str) -> str:
    """Returns `path` if it stays inside the pack, else raises ValueError."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise ValueError(f"{path!r} must be a relative path inside the pack")
    return path


class Part(BaseModel):
    """One pretrained part, in the format of its own library.

    Attributes:
        path: Folder of the part, relative to the root of the pack, with `/`.
        licence: SPDX name, or the licensor's own words.
        settings: What the loader must be told besides the path (detector size, image size...).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    licence: str
    settings: dict[str, Any] = Field(default_factory=dict)

    _inside = field_validator("path")(_relative)


class Manifest(BaseModel):
    """The content of `manifest.json`.

    Attributes:
        name: Name of the pack.
        version: Version of the pack; changes whenever a file does.
        licence: Licence of the pack as a whole; a part may carry its own.
        parts: Part name -> part.
        files: Path relative to the root (with `/`) -> sha256, for every file of every part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    licence: str
    parts: dict[str, Part]
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _files_inside(self) -> Manifest:
        for path in self.files:
            _relative(path)
        return self


class Pack:
    """An opened pack.

    The hashes of a part are checked when that part is first asked for, so a step reads only what it uses.

    Attributes:
        root: Folder of the pack.
        manifest: Its manifest.
        source: Where its files come from when they are first asked for (`s3://...`); empty: they are in `root`.
    """

    def __init__(self, root: Path, manifest: Manifest, source: str = "") -> None:
        self.root = root
        self.manifest = manifest
        self.source = source

    def part(self, name: str) -> Path:
        """Returns the folder of a part after its files were verified.

        Raises:
            VisavisError: If the pack has no such part, or a file is missing, altered or not in the manifest.
        """
        folder = self.root / self._declared(name).path
        if self.source:
            s3.bring(self.source, self._files(name), self.root)
        self._verify(name, folder)
        return folder

    def settings(self, name: str) -> dict[str, Any]:
        """Returns a copy of the loader settings of a part.

        Raises:
            VisavisError: If the pack has no such part.
        """
        return dict(self._declared(name).settings)

    def has(self, name: str) -> bool:
        """Says whether the pack declares a part of this name."""
        return name in self.manifest.parts

    def verify(self) -> None:
        """Verifies every part; of a pack in a bucket, whose bytes are checked where they are read, that it is whole.

        Raises:
            VisavisError: On the first missing, altered or undeclared file.
        """
        if self.source:
            there = s3.listed(self.source)
            for path in self.manifest.files:
                if path not in there:
                    raise VisavisError(
                        f"pack {self.manifest.name}: file {path} is missing in {self.source}",
                        fix="upload the pack afresh",
                    )
            return
        for name in self.manifest.parts:
            self.part(name)

    def _declared(self, name: str) -> Part:
        try:
            return self.manifest.parts[name]
        except KeyError:
            known = ", ".join(sorted(self.manifest.parts)) or "none"
            raise VisavisError(
                f"pack {self.manifest.name}: no part {name!r}; it has: {known}",
                fix=f"add parts.{name} to {self.root / MANIFEST_NAME}, or choose a pack that has this part",
            ) from None

    def _files(self, name: str) -> dict[str, str]:
        """Returns the hashes of the files of a part, by path."""
        prefix = f"{self.manifest.parts[name].path.rstrip('/')}/"
        return {path: digest for path, digest in self.manifest.files.items() if path.startswith(prefix)}

    def _verify(self, name: str, folder: Path) -> None:
        expected = self._files(name)
        restore = (
            f"copy the pack afresh, or run write_manifest({str(self.root)!r}) if you changed it on purpose"
        )
        for path, digest in expected.items():
            file = self.root / path
            if not file.is_file():
                raise VisavisError(f"pack {self.manifest.name}: file {path} is missing", fix=restore)
            found = sha256_once(file)
            if found != digest:
                raise VisavisError(
                    f"pack {self.manifest.name}: {path} has sha256 {found[:12]}, not {digest[:12]}",
                    fix=restore,
                )
        # A library may prefer a file that nobody vouched for (a second weights file), so none is tolerated.
        undeclared = [path for path in _files_below(self.root, folder) if path not in expected]
        if undeclared or not expected:
            detail = f"{undeclared[0]} is not in the manifest" if undeclared else f"part {name} has no files"
            raise VisavisError(f"pack {self.manifest.name}: {detail}", fix=restore)


def load_pack(name_or_path: str | Path) -> Pack:
    """Opens a pack by the name of a bundled one (`storybook`), or by the path or `s3://` address of its folder.

    The parts of a pack in a bucket are brought into the scratch folder of this machine as they are asked for.

    Raises:
        VisavisError: If there is no such pack, or its manifest is not valid.
    """
    text = str(name_or_path)
    if s3.is_remote(text):
        return _remote_pack(text)
    bundled = _BUNDLED / text
    root = bundled if text in bundled_packs() else Path(name_or_path).expanduser()
    file = root / MANIFEST_NAME
    if not file.is_file():
        names = bundled_packs()
        near = difflib.get_close_matches(text, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise VisavisError(
            f"pack {text!r} is neither a bundled pack nor a folder with a {MANIFEST_NAME}",
            fix=f"{hint}bundled packs: {', '.join(names) or 'none'}; else give the path of a downloaded pack",
        )
    return Pack(root.resolve(), _read(file))


@lru_cache(maxsize=8)
def _remote_pack(source: str) -> Pack:
    place = s3.below(source, MANIFEST_NAME)
    found = s3.read(place)
    if found is None:
        raise VisavisError(
            f"pack {source} has no {MANIFEST_NAME}",
            fix="correct the address of the pack, or upload all of it",
        )
    # Another pack under the same address is another folder.
    root = s3.scratch_for(source) / sha256_bytes(found[0])[:16]
    write_atomic(root / MANIFEST_NAME, found[0])
    if (card := s3.read(s3.below(source, CARD))) is not None:
        write_atomic(root / CARD, card[0])
    return Pack(root, _read(root / MANIFEST_NAME), source)


def bundled_packs() -> list[str]:
    """Returns the names of the packs that come with the package, sorted."""
    return sorted(file.parent.name for file in _BUNDLED.glob(f"*/{MANIFEST_NAME}"))


def write_manifest(root: Path, manifest: Manifest | None = None) -> Manifest:
    """Hashes the files of all parts and writes `manifest.json`.

    Args:
        root: Folder of the pack.
        manifest: What to declare; its `files` are computed anew. Without it the declarations already in
            `manifest.json` are kept and only the hashes are renewed.

    Returns:
        The manifest as written.

    Raises:
        VisavisError: If a declared part has no files, or there is no valid manifest to renew.
    """
    file = root / MANIFEST_NAME
    declared = manifest if manifest is not None else _read(file)
    files: dict[str, str] = {}
    for name, part in declared.parts.items():
        paths = _files_below(root, root / part.path)
        if not paths:
            raise VisavisError(
                f"pack {declared.name}: parts.{name}.path is {part.path!r}, which holds no files",
                fix=f"put the files of {name} into {root / part.path}, or remove the part from the manifest",
            )
        files.update({path: sha256_file(root / path) for path in paths})
    written = declared.model_copy(update={"files": dict(sorted(files.items()))})
    write_json(file, written.model_dump())
    return written


def _read(file: Path) -> Manifest:
    try:
        return Manifest.model_validate(read_json(file))
    except FileNotFoundError:
        raise VisavisError(
            f"{file} does not exist", fix="give write_manifest a Manifest to begin with"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"]) or "the whole file"
        raise VisavisError(f"{file}: {field}: {first['msg']}", fix=f"correct {field} in {file}") from error
    except ValueError as error:
        raise VisavisError(
            f"{file} is not JSON: {error}", fix=f"restore {file} from the pack's source"
        ) from error


def _files_below(root: Path, folder: Path) -> list[str]:
    """Returns the files under `folder` relative to `root`, sorted, without hidden ones."""
    paths = (path.relative_to(root) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(step.startswith(".") for step in path.parts))
