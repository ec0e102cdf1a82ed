"""Builds the bundled pack: trains what is missing, puts the parts together, writes card and manifest.

Each part's trainer resumes from its checkpoint, and a part whose figures are there is not trained again unless it is
asked for by name; then what was built on it is trained anew too, for it would not fit any more. When parts are named,
those that were never trained here are taken from the pack that is there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visavis.errors import VisavisError
from visavis.files import atomic_dir, read_json, write_atomic, write_json
from visavis.packs.manifest import Manifest, Part, write_manifest
from visavis.pretrain.faces import SETTINGS as FACE_SETTINGS

FIGURES = "figures.json"
TRAINED_BY = "trained_by"
"""Beside the figures of a part: the commands that made it."""

LARGEST_BYTES = 25 * 10**6


@dataclass(frozen=True)
class PartPlan:
    """How one part is made and judged.

    Attributes:
        folder: Its folder in the pack.
        command: Module and arguments that train it; `{work}` is the working folder.
        made: What it is and what it was trained on, for the card.
        figures: Key in `figures.json` -> (words, target); the target is None where there is none.
        leaves: What its training leaves in the working folder and a new one must not find: checkpoints, and
            what was computed with the part. Patterns of `Path.glob`.
        needs: The parts that it is trained on.
        then: Module and arguments that add figures once it is trained.
        remark: What a reader of its figures should know.
        settings: What the loader must be told.
    """

    folder: str
    command: tuple[str, ...]
    made: str
    figures: dict[str, tuple[str, float | None]]
    leaves: tuple[str, ...]
    needs: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    remark: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


_PICTURES = ("--pictures", "{work}/pictures/train", "--unseen", "{work}/pictures/eval")
_ENCODER = ("--encoder", "{work}/parts/image_encoder")
PLANS: dict[str, PartPlan] = {
    "faces": PartPlan(
        "faces",
        ("faces", "--work", "{work}/faces", "--out", "{work}/parts/faces", "--seconds", "900"),
        "SCRFD-shaped detector and ArcFace net (ONNX, insightface), on scenes of every layout and masked close-ups",
        {
            "detection/recall": ("face detector recall at IoU 0.5", 0.98),
            "recognition/auc": ("ArcFace verification AUC", 0.99),
            "recognition/auc_look_alike": (
                "ArcFace AUC against look-alikes (same hair, skin, glasses)",
                None,
            ),
        },
        ("faces/detector.pt", "faces/recogniser.pt"),
        settings=FACE_SETTINGS,
    ),
    "segmenter": PartPlan(
        "segmenter",
        ("segmenter", "--work", "{work}/faces", "--out", "{work}/parts/segmenter", "--seconds", "480"),
        "`segment_anything` Sam, prompted with jittered face boxes",
        {"iou": ("mean IoU of head masks", 0.90)},
        ("faces/segmenter.pt",),
    ),
    "image_encoder": PartPlan(
        "image_encoder",
        ("encoder", "--work", "{work}/encoder", "--out", "{work}/parts/image_encoder", *_PICTURES),
        "Qwen-VL-shaped ViT, trained so that its 64 pooled tokens give the picture back by a linear map",
        {
            "linear_read_out_scene_psnr_db": ("linear read-out of the 64 tokens, scenes, dB", 22.0),
            "linear_read_out_closeup_psnr_db": ("linear read-out of the 64 tokens, close-ups, dB", 22.0),
        },
        ("encoder/checkpoints", "pictures/*/tokens.npy"),
    ),
    "vae": PartPlan(
        "vae",
        ("autoencoder", "--work", "{work}/vae", "--out", "{work}/parts/vae", "--seconds", "1000"),
        "diffusers AutoencoderDC, 64 px to 8 x 8 x 32",
        {
            "psnr_db_pair": ("round trip, pairs, dB", None),
            "psnr_db_closeup": ("round trip, close-ups, dB", None),
        },
        ("vae/*.pt", "pictures/*/latents.npy"),
    ),
    "clip": PartPlan(
        "clip",
        ("clip", "--work", "{work}/clip", "--out", "{work}/parts/clip", *_PICTURES),
        "transformers CLIPModel, on pictures and captions of them",
        {
            "recall_at_1_among_64_scenes": ("recall@1 among 64 scenes", 0.80),
            "recall_at_1_among_64_pairs": ("recall@1 among 64 pictures of two people", None),
        },
        ("clip/checkpoints", "clip/pictures.pt"),
    ),
    "text_to_image": PartPlan(
        "text_to_image",
        ("text_to_image", "--parts", "{work}/parts", *_PICTURES),
        "diffusers PixArt transformer, flow matching on latents, told by CLIP's words",
        {
            "clean_latent_mse": ("mean squared error of the clean latent (unit variance)", None),
            "clean_latent_mse_pairs": ("the same, whole pictures of two", None),
            "round_trip_psnr_db": ("64 tokens through the DiT after 300 tuning steps, scenes, dB", 23.0),
            "round_trip_closeup_psnr_db": ("the same, close-ups, dB", 23.0),
        },
        ("text_to_image/checkpoints",),
        needs=("image_encoder", "clip", "vae"),
        then=("round_trip", "--parts", "{work}/parts", *_PICTURES),
    ),
    "mllm": PartPlan(
        "mllm",
        ("mllm", "--work", "{work}/mllm", "--out", "{work}/parts/mllm", *_ENCODER, *_PICTURES),
        "transformers LLaMA with connectors: text-to-image with a plan, describing, places, who is who by name, crops",
        {
            "text_words": ("words right: who has what, five people, text alone", None),
            "describe_words": ("words right: describing a person", None),
            "where_is_name": ("left or right of somebody named (chance 0.5)", 0.9),
            "crop_right_person": ("crop by side or looks is nearer to the right person (chance 0.5)", 0.9),
            "name_right_person": ("crop by name is nearer to the right person (chance 0.5)", 0.9),
            "name_right_person_varied": ("the same, requests varied in words and order", None),
            "crop_mse": ("crop by side or looks: mean squared error of image tokens", None),
            "paint_mse": (
                "text-to-image, most pictures of two planned: mean squared error of image tokens",
                None,
            ),
        },
        ("mllm/checkpoints",),
        needs=("image_encoder",),
        remark="Crops are coarse, so two people of like colours are easily taken for one another; crops still"
        " gained when the training ended. Its figures are on close-ups as they are cut today, the face at one size;"
        " the parts before it were trained, and all but the vae measured, on close-ups that ended where the hair did.",
    ),
}


def build(
    work: Path, root: Path, parts: Sequence[str] | None = None, say: Callable[[str], None] = print
) -> Manifest:
    """Trains the missing parts and assembles the pack.

    Args:
        work: Folder for pictures, checkpoints and finished parts; a killed build goes on there.
        root: Folder of the pack; one that is there lends the parts that are neither named nor trained in `work`.
        parts: Parts to train anew, with those that need them. Without any, every part that is missing from `work`
            is trained, so a build that was killed goes on without naming any.
        say: Receives one line for each thing that begins.

    Raises:
        VisavisError: If a part is unknown, a trainer fails, or the pack grows too large.
    """
    unknown = sorted(set(parts or ()) - set(PLANS))
    if unknown:
        raise VisavisError(f"pack build: part {unknown[0]!r} does not exist", fix=f"use {', '.join(PLANS)}")
    for name, seed in (("train", "0"), ("eval", "1000000")):
        if not (work / "pictures" / name / "set.json").is_file():
            count = "9000" if name == "train" else "900"
            _run("pictures", ("--out", f"{work}/pictures/{name}", "--count", count, "--seed", seed), say)
    _withdraw(work, parts or ())
    if parts:
        _borrow(work / "parts", root, parts, say)
    for plan in PLANS.values():
        file = work / "parts" / plan.folder / FIGURES
        if not _is_finished(file.parent):
            commands = [command for command in (plan.command, plan.then) if command]
            for module, *arguments in commands:
                _run(module, [argument.format(work=work) for argument in arguments], say)
            made = [" ".join(command).format(work=".work") for command in commands]
            write_json(file, {**read_json(file), TRAINED_BY: made})
    return assemble(work / "parts", root)


def _is_finished(folder: Path) -> bool:
    """Whether all commands of a part came to their end: the last act is to write down which they were."""
    file = folder / FIGURES
    return file.is_file() and TRAINED_BY in read_json(file)


def _dependants(names: Iterable[str]) -> set[str]:
    """Returns the parts and all that are trained on them."""
    chosen = set(names)
    for name, plan in PLANS.items():
        if not chosen.isdisjoint(plan.needs):
            chosen.add(name)
    return chosen


def _borrow(parts: Path, root: Path, named: Sequence[str], say: Callable[[str], None]) -> None:
    """Copies into `parts` what the pack in `root` has and is neither named nor built on what is."""
    if not (root / FIGURES).is_file():
        return
    figures = read_json(root / FIGURES)
    for name in (name for name in PLANS if name not in _dependants(named) and name in figures):
        folder = parts / PLANS[name].folder
        if not folder.exists():
            say(f"{name} is taken from {root}")
            with atomic_dir(folder) as fresh:
                shutil.copytree(root / PLANS[name].folder, fresh, dirs_exist_ok=True)
                write_json(fresh / FIGURES, figures[name])


def _withdraw(work: Path, parts: Sequence[str]) -> None:
    """Moves finished parts, and finished parts that need them, to `work/replaced` and drops their checkpoints.

    A part that is not finished is left alone: it is being trained, and goes on.
    """
    finished = (name for name in parts if _is_finished(work / "parts" / PLANS[name].folder))
    for name in _dependants(finished):
        plan = PLANS[name]
        for pattern in plan.leaves:
            for path in work.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (old := work / "parts" / plan.folder).exists():
            kept = work / "replaced" / plan.folder
            shutil.rmtree(kept, ignore_errors=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            old.replace(kept)


def _run(module: str, arguments: Sequence[str], say: Callable[[str], None]) -> None:
    say(f"training {module}")
    result = subprocess.run([sys.executable, "-m", f"visavis.pretrain.{module}", *arguments], check=False)
    if result.returncode:
        raise VisavisError(
            f"pack build: {module} ended with code {result.returncode}",
            fix="run the command again: it resumes",
        )


def assemble(parts: Path, root: Path) -> Manifest:
    """Copies finished parts into the pack, with card and manifest; the pack is replaced as a whole.

    Raises:
        VisavisError: If a part is missing or the files are too large together.
    """
    figures: dict[str, dict[str, Any]] = {}
    with atomic_dir(root) as folder:
        for name, plan in PLANS.items():
            source = parts / plan.folder
            if not (source / FIGURES).is_file():
                raise VisavisError(
                    f"pack build: part {name} has no {FIGURES} in {source}",
                    fix=f"train it: visavis pack build --part {name}",
                )
            figures[name] = read_json(source / FIGURES)
            for file in sorted(source.rglob("*")):
                if file.is_file() and file.name != FIGURES:
                    write_atomic(folder / plan.folder / file.relative_to(source), file.read_bytes())
        sizes = {name: _bytes(folder / plan.folder) for name, plan in PLANS.items()}
        total = sum(sizes.values())
        if total > LARGEST_BYTES:
            raise VisavisError(
                f"pack build: {total / 1e6:.1f} MB, at most {LARGEST_BYTES / 1e6:.0f}",
                fix="make the largest part smaller",
            )
        write_json(folder / FIGURES, figures)
        write_atomic(folder / "card.md", _card(figures, sizes))
        declared = {
            name: Part(path=plan.folder, licence="MIT", settings=plan.settings)
            for name, plan in PLANS.items()
        }
        return write_manifest(folder, Manifest(name=root.name, version="1", licence="MIT", parts=declared))


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _card(figures: Mapping[str, Mapping[str, Any]], sizes: dict[str, int]) -> str:
    lines = [
        "# Pack `storybook`",
        "",
        "Small pretrained parts for CPUs, all trained by `visavis pack build storybook` on pictures of the procedural",
        "storybook world. No photo of a real person was used. Every figure is on people that no training saw; those",
        "of the demo's clips are others again.",
        "",
        "| part | MB | what it is, and what it was trained on |",
        "| --- | ---: | --- |",
    ]
    lines += [f"| {name} | {sizes[name] / 1e6:.1f} | {plan.made} |" for name, plan in PLANS.items()]
    lines += ["", "| part | figure | measured | target |", "| --- | --- | ---: | ---: |"]
    for name, plan in PLANS.items():
        for key, (words, target) in plan.figures.items():
            value = figures[name].get(key)
            measured = "not measured" if value is None else f"{value:.3f}"
            missed = "" if value is None or target is None or value >= target else " (missed)"
            wanted = "" if target is None else f"{target:g}{missed}"
            lines.append(f"| {name} | {words} | {measured} | {wanted} |")
    for name, plan in PLANS.items():
        if plan.remark:
            lines += ["", f"{name}: {plan.remark}"]
    lines += ["", "| part | trained by `python -m visavis.pretrain.`… |", "| --- | --- |"]
    for name in PLANS:
        commands = figures[name].get(TRAINED_BY, ["not recorded"])
        lines.append(f"| {name} | {', then '.join(f'`{command}`' for command in commands)} |")
    return "\n".join([*lines, "", "Licence of all parts: MIT.", ""])
