"""Personalisers: models that paint a person they are shown, for the full-body targets (paper, Suppl. 8)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visavis.chat.model import MODEL_FILE, ChatModel, Picture
from visavis.chat.reading import Chat
from visavis.chat.template import user
from visavis.data.chat_config import FullBodyConfig
from visavis.data.chats.full_body import Personaliser
from visavis.data.config import Prompts
from visavis.errors import VisavisError
from visavis.files import sha256_bytes, sha256_file
from visavis.packs import Pack

PART = "personaliser"
_PIPELINE, _ADAPTER = "pipeline", "ip_adapter"
_SETTINGS = {
    "weight_name",
    "subfolder",
    "image_encoder_folder",
    "scale",
    "steps",
    "guidance",
    "width",
    "height",
}


def load_personaliser(pack: Pack, config: FullBodyConfig, prompts: Prompts) -> Personaliser:
    """Returns the pack's part `personaliser`, or else the model version in the settings.

    Args:
        pack: May have a part `personaliser`: a folder with `pipeline/` (a diffusers text-to-image pipeline) and
            `ip_adapter/` (its IP-Adapter). The part's settings are described at `IpAdapterPersonaliser`.
        config: Names the model version.
        prompts: The wording that the model version was trained on.

    Raises:
        VisavisError: If there is neither.
    """
    if pack.has(PART):
        part = pack.manifest.parts[PART].path.rstrip("/")
        files = sorted(item for item in pack.manifest.files.items() if item[0].startswith(f"{part}/"))
        fingerprint = sha256_bytes(repr((files, pack.settings(PART))).encode())
        return IpAdapterPersonaliser.from_part(pack.part(PART), pack.settings(PART), fingerprint)
    if config.model:
        return MllmPersonaliser.from_version(Path(config.model), prompts)
    raise VisavisError(
        f"full_body.model is empty, and pack {pack.manifest.name} has no part {PART!r}: nobody can paint",
        fix="set full_body.model to the folder of a model version, or full_body.enabled to false",
    )


class MllmPersonaliser:
    """The pipeline's own model after stage 3: a face and a caption in, a picture of that person out.

    Args:
        model: Paints; needs a detokenizer.
        prompts: The wording of stage 3.
        fingerprint: Names the model.
    """

    def __init__(self, model: ChatModel, prompts: Prompts, fingerprint: str) -> None:
        self._model, self._prompts = model, prompts
        self.fingerprint = fingerprint

    @classmethod
    def from_version(cls, folder: Path, prompts: Prompts) -> MllmPersonaliser:
        """Loads a model version: a folder with MLLM and detokenizer.

        Raises:
            VisavisError: If the folder holds no model version.
        """
        if not (folder / MODEL_FILE).is_file():
            raise VisavisError(
                f"full_body.model is {str(folder)!r}, which holds no model version ({MODEL_FILE} is missing)",
                fix="give the folder of a version that a run has registered",
            )
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        hashes = [(path.relative_to(folder).as_posix(), sha256_file(path)) for path in files]
        return cls(ChatModel.from_pretrained(folder), prompts, sha256_bytes(repr(hashes).encode()))

    def paint(self, face: Picture, prompt: str, seed: int) -> Picture:
        """Paints the person of a cutout; see `Personaliser`.

        Raises:
            ValueError: If the model answers in words only.
        """
        words = self._prompts.picture.replace("{caption}", prompt)
        (reply,) = self._model.respond([Chat([user(words, 0)], [self._model.encode([face])[0]])])
        if reply.tokens is None:
            raise ValueError(f"the model answered without a picture: {reply.text!r}")
        return self._model.paint(reply.tokens[None], seed)[0]


class IpAdapterPersonaliser:
    """A diffusers text-to-image pipeline that is shown the face by an IP-Adapter.

    Args:
        pipeline: With the IP-Adapter loaded.
        fingerprint: Names pipeline, adapter and settings.
        steps: Denoising steps.
        guidance: Scale of classifier-free guidance.
        width: Px of a picture; None: the pipeline's default.
        height: The same.
    """

    def __init__(
        self,
        pipeline: Any,
        fingerprint: str,
        *,
        steps: int = 30,
        guidance: float = 5.0,
        width: int | None = None,
        height: int | None = None,
    ) -> None:
        self._pipeline = pipeline
        self.fingerprint = fingerprint
        self._options = {
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "width": width,
            "height": height,
        }

    @classmethod
    def from_part(cls, folder: Path, settings: Mapping[str, Any], fingerprint: str) -> IpAdapterPersonaliser:
        """Loads a part of a pack.

        Args:
            folder: With `pipeline/` and `ip_adapter/`.
            settings: `weight_name` (file of the adapter), `subfolder` (default: none), `image_encoder_folder`
                (default `image_encoder`), `scale` (strength of the adapter, default 0.7), `steps`, `guidance`,
                `width` and `height`.
            fingerprint: Names part and settings.

        Raises:
            VisavisError: If `weight_name` is missing, or a setting is not one of these.
        """
        unknown = sorted(set(settings) - _SETTINGS)
        if unknown or "weight_name" not in settings:
            wrong = f"unknown: {', '.join(unknown)}" if unknown else "weight_name is missing"
            raise VisavisError(
                f"parts.{PART}.settings of the pack: {wrong}",
                fix=f"correct the manifest; known settings: {', '.join(sorted(_SETTINGS))}",
            )
        import torch
        from diffusers import AutoPipelineForText2Image

        pipeline = AutoPipelineForText2Image.from_pretrained(str(folder / _PIPELINE), use_safetensors=True)
        pipeline.load_ip_adapter(
            str(folder / _ADAPTER),
            subfolder=settings.get("subfolder", ""),
            weight_name=settings["weight_name"],
            image_encoder_folder=settings.get("image_encoder_folder", "image_encoder"),
        )
        pipeline.set_ip_adapter_scale(settings.get("scale", 0.7))
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
        given = {key: settings[key] for key in ("steps", "guidance", "width", "height") if key in settings}
        return cls(pipeline, fingerprint, **given)

    def paint(self, face: Picture, prompt: str, seed: int) -> Picture:
        """Paints the person of a cutout; see `Personaliser`."""
        import torch
        from PIL import Image

        # On the CPU, the same seed gives the same noise on every machine.
        generator = torch.Generator("cpu").manual_seed(seed)
        result = self._pipeline(
            prompt=prompt, ip_adapter_image=Image.fromarray(face), generator=generator, **self._options
        )
        return np.asarray(result.images[0].convert("RGB"))
