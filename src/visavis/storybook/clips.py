"""Renders a collection of clips as it might come from the wild, with the truth about it kept aside.

clips.jsonl        the public manifest: id, file, uri, licence, consent, recording
clips/000000.mp4   the clips, some of them unusable
pictures/*.png     natural pictures: empty scenes and single people
truth/             captions, boxes, landmarks, masks and person ids; only for scoring
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import skia
from numpy.typing import NDArray

from visavis.errors import VisavisError
from visavis.files import read_json, sha256_bytes, sha256_file, write_atomic, write_json, write_jsonl
from visavis.storybook.captions import caption, clothes, looks
from visavis.storybook.draw import Picture, render
from visavis.storybook.people import sample_person
from visavis.storybook.plan import SHARES, ClipScript, person_of, plan_clips, recordings
from visavis.storybook.shots import Scene, interpolate, move, sample_scene

CLIP_WIDTH, CLIP_HEIGHT, CLIP_FPS = 192, 128, 24
PICTURE_SIDE = 128
LICENCE = "CC0-1.0"
Progress = Callable[[int, int], None]
Frames = list[NDArray[np.uint8]]

# Clips of the other kinds show no people of their own.
_LAYOUTS = {"one": "one", "three": "three", "far": "pair_far", "pair": "pair", "truncated": "pair"}
_ASPECT = CLIP_WIDTH / CLIP_HEIGHT
_FRAMES = (26, 33)
_CRF, _CRF_OF_DUPLICATE = 16, 25
# Places that look unlike the others, so that a cut to or from them is a visible one.
_DARK, _BRIGHT = ("city", "cafe", "sunset"), ("beach", "mountains", "room", "park")
_PICTURE_LAYOUTS = ("empty", "empty", "empty", "portrait", "one", "full_body")
# Pictures show other people than the clips: their seeds begin a stream that no clip index reaches.
_PICTURE_STREAM = 1 << 40


def mask_to_runs(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Returns a bool [H, W] mask as run lengths in row order; the first run is outside the mask."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask.ravel(), [False]]).astype(np.int8)))
    stops = np.concatenate([[0], edges, [mask.size]])
    return {"size": [*mask.shape], "counts": np.diff(stops).tolist()}


def runs_to_mask(runs: dict[str, list[int]]) -> NDArray[np.bool_]:
    """Returns the bool [H, W] mask of `mask_to_runs`."""
    counts = runs["counts"]
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(runs["size"])


def render_clips(
    out: Path,
    count: int,
    seed: int,
    shares: dict[str, float] | None = None,
    count_pictures: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes a collection; a killed call goes on where it stopped and ends with the same bytes.

    Args:
        out: Folder to write; may hold the beginning of the same collection.
        count: Number of clip files.
        seed: Of everything in it. Other seeds show other people.
        shares: How many clips are of which kind, by default `SHARES`; they add to 1.
        count_pictures: Number of natural pictures, by default as many as clips.
        progress: Called with the number of files done and in all.

    Returns:
        `{"seed", "clips", "pictures", "people", "kinds": {kind: n}, "files": {name: sha256}}`.

    Raises:
        VisavisError: If the arguments are not a plan, or `out` holds another collection.
    """
    scripts = plan_clips(count, seed, shares)
    count_pictures = count if count_pictures is None else count_pictures
    _claim(out, {"seed": seed, "clips": count, "pictures": count_pictures, "shares": shares or SHARES})
    total, done = count + count_pictures, 0
    clips, pictures = [], []
    for script in scripts:
        clips.append(_once(out, script.file, partial(_make_clip, scripts, script)))
        done += 1
        if progress:
            progress(done, total)
    for index in range(count_pictures):
        file = f"pictures/{index:06d}.png"
        pictures.append(_once(out, file, partial(_make_picture, seed, index)))
        done += 1
        if progress:
            progress(done, total)
    people = sorted({person for script in scripts for person in script.people})
    write_jsonl(out / "truth/clips.jsonl", clips)
    write_jsonl(out / "truth/pictures.jsonl", pictures)
    known = [{"person": person, **asdict(person_of(seed, person))} for person in people]
    write_jsonl(out / "truth/people.jsonl", known)
    public = [
        {
            "id": row["id"],
            "file": row["file"],
            "uri": f"storybook://{seed}/{row['file']}",
            "licence": LICENCE,
            "consent": True,
            "recording": recording,
        }
        for row, recording in zip(clips, recordings(scripts), strict=True)
    ]
    write_jsonl(out / "clips.jsonl", public)
    names = ("clips.jsonl", "truth/clips.jsonl", "truth/pictures.jsonl", "truth/people.jsonl")
    return {
        "seed": seed,
        "clips": count,
        "pictures": count_pictures,
        "people": len(people),
        "kinds": dict(Counter(script.kind for script in scripts)),
        "files": {name: sha256_file(out / name) for name in names},
    }


def _claim(out: Path, plan: dict[str, Any]) -> None:
    path = out / "truth/plan.json"
    if not path.is_file():
        write_json(path, plan)
    elif (held := read_json(path)) != plan:
        field = next(name for name in plan if held.get(name) != plan[name])
        raise VisavisError(
            f"out: {out} holds another collection ({field} is {held.get(field)}, not {plan[field]})",
            fix="Choose an empty folder, or repeat the call with the arguments of the first one.",
        )


def _once(out: Path, file: str, make: Callable[[], tuple[bytes, dict[str, Any]]]) -> dict[str, Any]:
    """Makes a file and its row of truth unless both are there; returns the row."""
    path, truth = out / file, (out / "truth/rows" / file).with_suffix(".json")
    if path.is_file() and truth.is_file():
        row: dict[str, Any] = read_json(truth)
        if sha256_file(path) == row["id"]:
            return row
    data, facts = make()
    write_atomic(path, data)
    row = {"id": sha256_bytes(data), "file": file, **facts}
    write_json(truth, row)
    return row


def _make_clip(scripts: tuple[ClipScript, ...], script: ClipScript) -> tuple[bytes, dict[str, Any]]:
    facts: dict[str, Any] = {"index": script.index, "kind": script.kind, "people": list(script.people)}
    rng = script.rng()
    if script.kind == "not_video":
        return _not_a_video(rng, script.index), facts
    if script.duplicate_of is not None:
        original = scripts[script.duplicate_of]
        frames, shown = _film(original, original.rng())
        frames = _again(frames, rng)
        # The truth of the original, not moved by the pixel or two that the copy is.
        facts |= {"duplicate_of": original.index, **shown}
        return _encode(frames, _CRF_OF_DUPLICATE), facts
    frames, shown = _film(script, rng)
    if script.kind == "truncated":
        data = _encode(frames, _CRF, index_first=bool(rng.random() < 0.5))
        return data[: int(len(data) * rng.uniform(0.3, 0.8))], facts
    return _encode(frames, _CRF), facts | shown


def _film(script: ClipScript, rng: np.random.Generator) -> tuple[Frames, dict[str, Any]]:
    """Returns the frames of a clip and the truth about its first and its last frame."""
    people = tuple(person_of(script.seed, person) for person in script.people)
    count = int(rng.integers(*_FRAMES))
    if script.kind == "cut":
        start = _into(sample_scene(rng, people[:2], "pair", _ASPECT), _DARK, rng)
        then = _into(sample_scene(rng, people[2:], "pair", _ASPECT), _BRIGHT, rng)
        if rng.random() < 0.5:
            start, then = then, start
        half = count // 2
        takes = [(start, move(start, rng), half), (then, move(then, rng), count - half)]
    else:
        start = sample_scene(rng, people, _LAYOUTS[script.kind], _ASPECT)
        takes = [(start, move(start, rng), count)]
    pictures = [
        (scene, render(scene, CLIP_WIDTH, CLIP_HEIGHT, masks=(take, k) in ((0, 0), (len(takes) - 1, n - 1))))
        for take, (begin, end, n) in enumerate(takes)
        for k in range(n)
        for scene in [interpolate(begin, end, k / (n - 1))]
    ]
    ids = {people[i]: person for i, person in enumerate(script.people)}
    facts: dict[str, Any] = {"frames": count}
    for name, (scene, picture) in (("first", pictures[0]), ("last", pictures[-1])):
        facts[name] = _truth(scene, picture, [ids[person] for person in scene.people])
    return [picture.image for _, picture in pictures], facts


def _into(scene: Scene, places: tuple[str, ...], rng: np.random.Generator) -> Scene:
    return replace(scene, background=places[int(rng.integers(len(places)))])


def _truth(scene: Scene, picture: Picture, ids: list[int]) -> dict[str, Any]:
    """Returns what a frame shows; faces from left to right, coordinates in pixels."""
    faces = []
    for face in sorted(picture.faces, key=lambda face: scene.shots[face.person].x):
        person, shot = scene.people[face.person], scene.shots[face.person]
        faces.append(
            {
                "person": ids[face.person],
                "looks": list(looks(person, shot)),
                "clothes": clothes(shot),
                "expression": shot.expression,
                "box": [round(value, 2) for value in face.box],
                "landmarks": [[round(float(v), 2) for v in point] for point in face.landmarks],
                "mask": mask_to_runs(face.mask),
            }
        )
    return {"caption": caption(scene), "background": scene.background, "layout": scene.layout, "faces": faces}


def _again(frames: Frames, rng: np.random.Generator) -> Frames:
    """Returns the frames as somebody else uploaded them: moved by a pixel or two."""
    dx, dy = (int(v) for v in rng.integers(-2, 3, 2))
    rows = np.clip(np.arange(CLIP_HEIGHT) - dy, 0, CLIP_HEIGHT - 1)
    columns = np.clip(np.arange(CLIP_WIDTH) - dx, 0, CLIP_WIDTH - 1)
    return [np.ascontiguousarray(frame[rows][:, columns]) for frame in frames]


def _encode(frames: Frames, crf: int, index_first: bool = False) -> bytes:
    """Returns an H.264 MP4 file; one thread and no dates, so that equal frames give equal bytes."""
    container_options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if index_first else {})
    with tempfile.TemporaryDirectory() as folder:
        # A real file, because the index is moved to the front by opening the file a second time.
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w", format="mp4", container_options=container_options) as container:
            options = {"crf": str(crf), "preset": "veryfast", "threads": "1", "flags": "+bitexact"}
            stream = container.add_stream("libx264", rate=CLIP_FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = CLIP_WIDTH, CLIP_HEIGHT, "yuv420p"
            stream.time_base = Fraction(1, CLIP_FPS)
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()


def _not_a_video(rng: np.random.Generator, index: int) -> bytes:
    text = f"<html><body>404: clip {index} is not here any more</body></html>\n".encode()
    return text if rng.random() < 0.5 else bytes(rng.integers(0, 256, 2048, dtype=np.uint8))


def _make_picture(seed: int, index: int) -> tuple[bytes, dict[str, Any]]:
    rng = np.random.default_rng([seed, _PICTURE_STREAM + index])
    layout = _PICTURE_LAYOUTS[int(rng.integers(len(_PICTURE_LAYOUTS)))]
    people = () if layout == "empty" else (sample_person(rng),)
    scene = sample_scene(rng, people, layout)
    picture = render(scene, PICTURE_SIDE, PICTURE_SIDE)
    opaque = np.full((*picture.image.shape[:2], 1), 255, np.uint8)
    data = skia.Image.fromarray(np.concatenate([picture.image, opaque], 2)).encodeToData()
    return bytes(data), {"index": index, **_truth(scene, picture, [-1] * len(people))}
