"""Loaders of the face parts of a pack: insightface finds and recognises, segment_anything cuts out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import VisavisError
from visavis.files import read_json

if TYPE_CHECKING:
    from insightface.app import FaceAnalysis
    from segment_anything import SamPredictor
    from segment_anything.modeling import Sam

_DET_SIZE = (640, 640)
SAM_CONFIG, SAM_WEIGHTS = "config.json", "model.safetensors"
_SAM_FIELDS = {
    "image_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "window_size",
    "global_attn_indexes", "use_rel_pos", "prompt_dim", "mask_in_chans", "num_multimask_outputs",
    "decoder_depth", "decoder_heads", "decoder_mlp_dim", "iou_head_depth", "iou_head_hidden_dim",
}  # fmt: skip


def load_faces(root: Path, settings: Mapping[str, Any]) -> FaceAnalysis:
    """Opens detection and recognition with insightface.

    Args:
        root: Folder of the part; the ONNX files lie under `models/<name>/`.
        settings: `name` (may be left out if there is only one), `det_size` [width, height] (default
            640 x 640; always one size: insightface's own default looks at two and so finds other faces, and
            collections and scores could not be compared), `det_thresh` (default 0.5), `providers` of
            onnxruntime (default: CUDA if it is there, then CPU) and `threads` of one inference (default:
            onnxruntime's choice; 1 is best for tiny nets).

    Returns:
        A prepared `FaceAnalysis`: `get(image)` takes uint8 [H, W, 3] in **BGR** and returns faces with
        `bbox`, `kps`, `det_score` and `normed_embedding`.

    Raises:
        VisavisError: If there is no such model folder, it lacks a detector or a recogniser, or `det_size` is not
            one size that the detector can take.
    """
    width, height = _det_size(settings)
    folder = _model_folder(root, settings.get("name"))
    import onnxruntime
    from insightface.app import FaceAnalysis

    # insightface aligns faces with a function that scikit-image has renamed; users can do nothing about it.
    warnings.filterwarnings("ignore", message="`estimate` is deprecated", category=FutureWarning)
    available = onnxruntime.get_available_providers()
    wanted = settings.get("providers") or ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [provider for provider in wanted if provider in available]
    options = onnxruntime.SessionOptions()
    if threads := settings.get("threads"):
        options.intra_op_num_threads = options.inter_op_num_threads = int(threads)
    try:
        # The folder itself, because insightface prefers a folder of that name in the working directory.
        faces = FaceAnalysis(
            name=str(folder.resolve()),
            allowed_modules=["detection", "recognition"],
            providers=providers or ["CPUExecutionProvider"],
            sess_options=options,
        )
    except AssertionError:
        raise VisavisError(f"faces: {folder} has no detector", fix="add an SCRFD ONNX file to it") from None
    if "recognition" not in faces.models:
        raise VisavisError(
            f"faces: {folder} has no recogniser", fix="add an ArcFace ONNX file (112 x 112) to it"
        )
    on_gpu = bool(providers) and providers[0] != "CPUExecutionProvider"
    faces.prepare(
        ctx_id=0 if on_gpu else -1,
        det_thresh=float(settings.get("det_thresh", 0.5)),
        det_size=(width, height),
    )
    # A detector that was exported for one size keeps to that one, whatever it is told.
    if (used := [tuple(size) for size in faces.det_model.input_sizes]) != [(width, height)]:
        raise VisavisError(
            f"faces: settings.det_size is [{width}, {height}], the detector looks at {used}",
            fix=f"set det_size of the part to {list(used[0])}, or export the detector with a free input size",
        )
    return faces


def _det_size(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Returns width and height; insightface would also take lists of sizes, and zeros for its own choice."""
    size = settings.get("det_size", _DET_SIZE)
    sides = list(size) if isinstance(size, list | tuple) else []
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 and side % 32 == 0 for side in sides):
        raise VisavisError(
            f"faces: settings.det_size is {size!r}",
            fix="give one [width, height] in multiples of 32, such as [640, 640]",
        )
    return sides[0], sides[1]


def _model_folder(root: Path, name: str | None) -> Path:
    models = root / "models"
    names = sorted(path.name for path in models.iterdir() if path.is_dir()) if models.is_dir() else []
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise VisavisError(
            f"faces: settings.name is {name!r}, {models} holds: {', '.join(names) or 'nothing'}",
            fix="set the name of the folder that holds the ONNX files in the settings of the part",
        )
    return models / str(name)


def build_sam(config: Mapping[str, Any]) -> Sam:
    """Builds a `segment_anything.modeling.Sam` with random weights from the fields of `config.json`.

    Raises:
        VisavisError: If a field is missing or unknown.
    """
    if wrong := _SAM_FIELDS.symmetric_difference(config):
        field = min(wrong)
        state = "missing" if field in _SAM_FIELDS else "unknown"
        raise VisavisError(f"segmenter: {field} is {state}", fix=f"correct {field} in {SAM_CONFIG}")
    import torch
    from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    size, patch, dim = config["image_size"], config["patch_size"], config["prompt_dim"]
    grid = size // patch
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=size,
            patch_size=patch,
            embed_dim=config["embed_dim"],
            depth=config["depth"],
            num_heads=config["num_heads"],
            mlp_ratio=config["mlp_ratio"],
            out_chans=dim,
            qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=config["use_rel_pos"],
            window_size=config["window_size"],
            global_attn_indexes=tuple(config["global_attn_indexes"]),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(grid, grid),
            input_image_size=(size, size),
            mask_in_chans=config["mask_in_chans"],
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=config["num_multimask_outputs"],
            transformer=TwoWayTransformer(
                depth=config["decoder_depth"],
                embedding_dim=dim,
                mlp_dim=config["decoder_mlp_dim"],
                num_heads=config["decoder_heads"],
            ),
            transformer_dim=dim,
            iou_head_depth=config["iou_head_depth"],
            iou_head_hidden_dim=config["iou_head_hidden_dim"],
        ),
    ).eval()


def load_segmenter(path: Path, device: str = "cpu") -> SamPredictor:
    """Opens a Sam of any size from `config.json` and `model.safetensors`; it computes in float32.

    Args:
        path: Folder of the part.
        device: Where the model computes.

    Returns:
        The library's own predictor: `set_image(uint8 [H, W, 3] RGB)`, then `predict(box=...)`.

    Raises:
        VisavisError: If the configuration or the weights are missing or do not fit each other.
    """
    try:
        model = build_sam(read_json(path / SAM_CONFIG))
    except FileNotFoundError:
        raise VisavisError(
            f"segmenter: {path / SAM_CONFIG} does not exist", fix="copy the part afresh"
        ) from None
    from safetensors.torch import load_file
    from segment_anything import SamPredictor

    try:
        model.load_state_dict(load_file(path / SAM_WEIGHTS))
    except (FileNotFoundError, RuntimeError) as error:
        raise VisavisError(
            f"segmenter: {path / SAM_WEIGHTS} does not fit {SAM_CONFIG}: {str(error).splitlines()[0]}",
            fix="take both files from the same pack",
        ) from error
    return SamPredictor(model.to(device))
