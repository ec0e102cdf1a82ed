"""Pictures of the storybook world, rendered once into a memory map that all trainings share.

A set is a folder: `images.u8` (raw uint8 [N, S, S, 3]), `rows.jsonl` (what picture i shows, as truth) and
`set.json` (how it was made). Close-ups are cut out of a frame of twice the size, as from a clip.

    python -m visavis.pretrain.pictures --out .work/pictures/train --count 12000 --seed 0
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from visavis.data.config import SegmentConfig
from visavis.data.crops import closeup_square, cut, masked_closeup, portrait_square, resized
from visavis.errors import VisavisError
from visavis.files import atomic_dir, read_json, read_jsonl, write_json, write_jsonl
from visavis.storybook.captions import clothes, looks, place
from visavis.storybook.draw import Picture, render
from visavis.storybook.people import Person, sample_person
from visavis.storybook.shots import Scene, move, sample_scene

Row: TypeAlias = dict[str, Any]

PEOPLE_BAND = 1_000_000
"""Seeds of training people lie in band 0, of evaluation people in band 1, of demo clips above."""

DEFAULT_KINDS: Mapping[str, float] = {
    "pair": 0.55, "portrait": 0.12, "one": 0.10, "full_body": 0.05, "three": 0.03, "empty": 0.15,
}  # fmt: skip
_PEOPLE_IN = {"empty": 0, "portrait": 1, "one": 1, "full_body": 1, "pair": 2, "pair_far": 2, "three": 3}
_SIDES: Mapping[int, tuple[str | None, ...]] = {
    1: (None,),
    2: ("left", "right"),
    3: ("left", "middle", "right"),
}
_WITH_CLOSEUPS = ("pair", "portrait", "one")
_FRAME_SCALE = 2
CLOSEUP_SCALE = SegmentConfig().closeup_scale
_PORTRAIT_SCALE, _PORTRAIT_SMALLEST = 2.4, 1.5
_SCENES_PER_CHUNK = 32
_FEWEST_PEOPLE = 8


@dataclass(frozen=True)
class PictureSet:
    """An opened set of pictures.

    Every row has `kind` ("scene", "moved", "closeup", or "portrait" for
    one person cut out of a pair), `layout`, `place` ("on the beach"), `scene` (number
    of the scene, equal for a scene, its moved version and their close-ups) and `people`, a list from left to
    right of dicts with `id` (seed of the person), `looks` (list of phrases, the most telling first),
    `clothes`, `side` ("left", "middle", "right", or None for somebody alone), `box` [x0, y0, x1, y1] of the
    face in px and `closeup` (row of the masked close-up, or None). A scene of two people has `moved` (row of
    the same people a second later, else None); a moved row and a close-up have `source` (row of the scene, or
    of the picture it is cut out of). A close-up has one entry in `people`, with the `side` of its source.

    Attributes:
        root: Folder of the set.
        images: uint8 [N, S, S, 3], read-only memory map.
        rows: N dicts.
    """

    root: Path
    images: NDArray[np.uint8]
    rows: list[Row]

    @classmethod
    def open(cls, root: Path) -> PictureSet:
        """Opens a set that `build` wrote.

        Raises:
            VisavisError: If there is none.
        """
        if not (root / "set.json").is_file():
            raise VisavisError(
                f"no picture set in {root}", fix=f"run python -m visavis.pretrain.pictures --out {root}"
            )
        size = read_json(root / "set.json")["size"]
        images = np.memmap(root / "images.u8", np.uint8, "r").reshape(-1, size, size, 3)
        return cls(root, images, read_jsonl(root / "rows.jsonl"))

    @classmethod
    def build(
        cls,
        root: Path,
        count: int,
        seed: int,
        size: int = 64,
        kinds: Mapping[str, float] | None = None,
        closeups: bool = True,
        processes: int = 1,
    ) -> PictureSet:
        """Renders a set; the same arguments give the same bytes. An existing set in `root` is replaced.

        Args:
            root: Folder to write.
            count: Number of scenes; with moved versions and close-ups there are about four pictures a scene.
            seed: Seed of the first person. People take the seeds from here on; each is in 2-3 scenes.
            size: Side of a picture, px.
            kinds: Layout -> share; default `DEFAULT_KINDS`.
            closeups: Also store masked close-ups, and moved versions of pairs.
            processes: Processes that render.

        Raises:
            VisavisError: If the people would leave the band of seeds that `seed` lies in.
        """
        layouts = _layouts(count, kinds or DEFAULT_KINDS, seed)
        people = _cast(layouts, seed)
        highest = max((person for ids in people for person in ids), default=seed)
        if highest // PEOPLE_BAND != seed // PEOPLE_BAND:
            raise VisavisError(
                f"seed {seed}: people reach {highest}, into the next band of {PEOPLE_BAND} seeds",
                fix="choose a lower seed or fewer scenes, so that training and evaluation people never meet",
            )
        jobs = []
        for first in range(0, count, _SCENES_PER_CHUNK):
            part = slice(first, first + _SCENES_PER_CHUNK)
            jobs.append(_Job(first, tuple(layouts[part]), tuple(people[part]), seed, size, closeups))
        rows: list[Row] = []
        with atomic_dir(root) as folder:
            with (folder / "images.u8").open("wb") as stream:
                for images, chunk in _rendered(jobs, processes, root.name):
                    offset = len(rows)
                    rows += [_shifted(row, offset) for row in chunk]
                    stream.write(images.tobytes())
            write_jsonl(folder / "rows.jsonl", rows)
            write_json(
                folder / "set.json",
                {"count": count, "seed": seed, "size": size, "kinds": dict(kinds or DEFAULT_KINDS),
                 "closeups": closeups, "pictures": len(rows), "people": highest - seed + 1},
            )  # fmt: skip
        return cls.open(root)

    def select(self, kind: str | None = None, layout: str | None = None) -> NDArray[np.int64]:
        """Returns the rows of one kind and one layout, in order; None stands for any."""
        chosen = (
            index
            for index, row in enumerate(self.rows)
            if (kind is None or row["kind"] == kind) and (layout is None or row["layout"] == layout)
        )
        return np.fromiter(chosen, np.int64)

    def by_person(self, kind: str) -> dict[int, list[int]]:
        """Returns person id -> the rows of one kind in which the person is seen."""
        found: dict[int, list[int]] = {}
        for index, row in enumerate(self.rows):
            if row["kind"] == kind:
                for person in row["people"]:
                    found.setdefault(person["id"], []).append(index)
        return found


@dataclass(frozen=True)
class _Job:
    first: int
    layouts: tuple[str, ...]
    people: tuple[tuple[int, ...], ...]
    seed: int
    size: int
    closeups: bool


_Chunk: TypeAlias = tuple[NDArray[np.uint8], list[Row]]


def _layouts(count: int, kinds: Mapping[str, float], seed: int) -> list[str]:
    """Returns the layout of each scene: the shares are kept as exactly as whole scenes allow."""
    if unknown := sorted(set(kinds) - set(_PEOPLE_IN)):
        raise VisavisError(f"kinds: unknown layout {unknown[0]!r}", fix=f"use {', '.join(_PEOPLE_IN)}")
    ends = np.round(np.cumsum(list(kinds.values())) / sum(kinds.values()) * count).astype(int)
    lengths = np.diff(ends, prepend=0)
    ordered = [name for name, length in zip(kinds, lengths, strict=True) for _ in range(length)]
    return [ordered[i] for i in np.random.default_rng([seed, 0]).permutation(count)]


def _cast(layouts: list[str], seed: int) -> list[tuple[int, ...]]:
    """Returns the people of each scene, nobody twice in a scene and everybody in two or three scenes."""
    needs = [_PEOPLE_IN[layout] for layout in layouts]
    total = sum(needs)
    people = max(-(-total * 2 // 5), _FEWEST_PEOPLE)
    rng = np.random.default_rng([seed, 1])
    while True:
        # Whole permutations one after another: only a scene across a seam can meet the same person twice.
        rounds = -(-total // people)
        slots = np.concatenate([rng.permutation(people) for _ in range(rounds)] or [np.zeros(0, int)])
        ends = np.cumsum(needs)
        cast = [
            tuple(int(i) + seed for i in slots[end - need : end])
            for need, end in zip(needs, ends, strict=True)
        ]
        if all(len(set(ids)) == len(ids) for ids in cast):
            return cast


def _rendered(jobs: list[_Job], processes: int, label: str) -> Iterator[_Chunk]:
    scenes = sum(len(job.layouts) for job in jobs)
    with tqdm(total=scenes, desc=f"pictures {label}", unit="scene", mininterval=2.0) as bar:
        if processes == 1:
            for job in jobs:
                yield _render_chunk(job)
                bar.update(len(job.layouts))
            return
        with ProcessPoolExecutor(processes) as pool:
            for job, chunk in zip(jobs, pool.map(_render_chunk, jobs), strict=True):
                yield chunk
                bar.update(len(job.layouts))


def _render_chunk(job: _Job) -> _Chunk:
    images: list[NDArray[np.uint8]] = []
    rows: list[Row] = []
    for offset, (layout, ids) in enumerate(zip(job.layouts, job.people, strict=True)):
        number = job.first + offset
        rng = np.random.default_rng([job.seed, 2, number])
        people = {sample_person(np.random.default_rng(person)): person for person in ids}
        scene = sample_scene(rng, tuple(people), layout)
        source = len(rows)
        _add(scene, people, number, "scene", job, images, rows)
        if layout == "pair" and job.closeups:
            rows[source]["moved"] = len(rows)
            moved = len(rows)
            _add(move(scene, rng), people, number, "moved", job, images, rows)
            rows[moved]["source"] = source
    return np.stack(images), rows


def _add(
    scene: Scene,
    ids: Mapping[Person, int],
    number: int,
    kind: Literal["scene", "moved"],
    job: _Job,
    images: list[NDArray[np.uint8]],
    rows: list[Row],
) -> None:
    """Appends the picture of a scene, then its close-ups; row numbers count from the start of the chunk."""
    wanted = job.closeups and scene.layout in _WITH_CLOSEUPS
    frame = job.size * _FRAME_SCALE
    picture: Picture = render(scene, frame, frame, masks=wanted)
    index = len(rows)
    row: Row = {
        "kind": kind, "layout": scene.layout, "place": place(scene.background), "scene": number, "people": [],
        "moved": None, "source": None,
    }  # fmt: skip
    rows.append(row)
    images.append(resized(picture.image, job.size))
    faces = sorted(picture.faces, key=lambda face: face.box[0] + face.box[2])
    for face, side in zip(faces, _SIDES.get(len(faces), ()), strict=True):
        person, shot = scene.people[face.person], scene.shots[face.person]
        entry: Row = {
            "id": ids[person], "looks": list(looks(person, shot)), "clothes": clothes(shot), "side": side,
            "box": [round(float(x) / _FRAME_SCALE, 2) for x in face.box], "closeup": None,
        }  # fmt: skip
        row["people"].append(entry)
        if wanted and face.mask.any():
            entry["closeup"] = len(rows)
            alone = {**entry, "box": None, "closeup": None}
            rows.append({**row, "kind": "closeup", "source": index, "people": [alone], "moved": None})
            close = closeup_square(face.box, CLOSEUP_SCALE)
            images.append(masked_closeup(picture.image, face.mask, close, job.size))
            if len(faces) == 2:
                other = next(f for f in faces if f is not face)
                square = portrait_square(face.box, other.box, frame, _PORTRAIT_SCALE, _PORTRAIT_SMALLEST)
                rows.append({**row, "kind": "portrait", "source": index, "people": [alone], "moved": None})
                images.append(resized(cut(picture.image, square), job.size))


def _shifted(row: Row, offset: int) -> Row:
    """Returns a row whose links count from the start of the set instead of the start of its chunk."""
    people = [{**person, "closeup": _plus(person["closeup"], offset)} for person in row["people"]]
    moved, source = _plus(row["moved"], offset), _plus(row["source"], offset)
    return {**row, "people": people, "moved": moved, "source": source}


def _plus(index: int | None, offset: int) -> int | None:
    return None if index is None else index + offset


def main() -> None:
    """Builds a set from the command line."""
    parser = argparse.ArgumentParser(description="Render a set of training pictures.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first person; evaluation: 1000000")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    made = PictureSet.build(given.out, given.count, given.seed, given.size, processes=given.processes)
    print(f"{len(made.rows)} pictures of {given.count} scenes in {given.out}")


if __name__ == "__main__":
    main()
