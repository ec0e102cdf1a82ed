"""The two face nets of the storybook pack and their ONNX form, which insightface reads without a change.

The detector has the outputs of SCRFD (Guo et al. 2021, `insightface.model_zoo.scrfd`): for each stride 8, 16,
32 and 2 anchors a place a score, 4 distances to the sides of the box and 5 landmark offsets, in units of the
stride. The recogniser is a small ArcFace net (Deng et al. 2019) for crops of 112 x 112.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

STRIDES = (8, 16, 32)
ANCHORS = ((16.0, 26.0), (32.0, 52.0), (64.0, 104.0))
"""Two face sizes (square root of the area, px) that each stride looks for.

They are the same multiples of every stride, so that the strides share one head.
"""

# Exponents beyond this are no box of any picture; the bound keeps an untrained net finite.
_MAX_EXPONENT = 2.0


class _Unit(nn.Sequential):
    """Convolution 3 x 3, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class _Residual(nn.Module):
    """x + unit(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.unit = _Unit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.unit(x)


class FaceDetector(nn.Module):
    """A detector of faces with the outputs of SCRFD; just under 200 thousand weights.

    Args:
        widths: Channels at the strides 2, 4, 8, 16, 32.
        width: Channels of the pyramid.
    """

    def __init__(
        self, widths: tuple[int, int, int, int, int] = (16, 24, 48, 56, 64), width: int = 40
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = widths
        self.stem = nn.Sequential(_Unit(3, c1, 2), _Unit(c1, c2, 2))
        self.stage8 = nn.Sequential(_Unit(c2, c3, 2), _Residual(c3))
        self.stage16 = nn.Sequential(_Unit(c3, c4, 2), _Residual(c4))
        self.stage32 = nn.Sequential(_Unit(c4, c5, 2), _Residual(c5))
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (c3, c4, c5))
        self.tower = nn.Sequential(_Unit(width, width), _Unit(width, width))
        self.score = nn.Conv2d(width, 2, 1)
        self.shape = nn.Conv2d(width, 2 * 14, 1)
        nn.init.constant_(self.score.bias, -4.0)  # type: ignore[arg-type]
        nn.init.normal_(self.shape.weight, std=0.01)
        nn.init.zeros_(self.shape.bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Finds faces.

        Args:
            pictures: float [B, 3, H, W], RGB, (pixel - 127.5) / 128; H and W divide by 32.

        Returns:
            Score logits [B, n, 1], distances [B, n, 4] and landmark offsets [B, n, 10] for each stride, in
            units of the stride; n = H/stride * W/stride * 2, anchors fastest, then columns.
        """
        feature8 = self.stage8(self.stem(pictures))
        feature16 = self.stage16(feature8)
        feature32 = self.stage32(feature16)
        top = self.lateral[2](feature32)
        middle = self.lateral[1](feature16) + nn.functional.interpolate(top, scale_factor=2.0, mode="nearest")
        bottom = self.lateral[0](feature8) + nn.functional.interpolate(
            middle, scale_factor=2.0, mode="nearest"
        )
        scores, boxes, landmarks = [], [], []
        for k, feature in enumerate((bottom, middle, top)):
            hidden = self.tower(feature)
            # The batch is named, not the places, so that one ONNX graph serves pictures of any size.
            scores.append(self.score(hidden).permute(0, 2, 3, 1).reshape(pictures.shape[0], -1, 1))
            shape = self.shape(hidden).permute(0, 2, 3, 1).reshape(pictures.shape[0], -1, 2, 14)
            half = torch.tensor(ANCHORS[k], dtype=shape.dtype, device=shape.device).view(1, 1, 2, 1) / (
                2 * STRIDES[k]
            )
            box = torch.exp(shape[..., :4].clamp(-_MAX_EXPONENT, _MAX_EXPONENT)) * half
            boxes.append(box.reshape(pictures.shape[0], -1, 4))
            landmarks.append((shape[..., 4:] * half).reshape(pictures.shape[0], -1, 10))
        return scores, boxes, landmarks


class FaceRecogniser(nn.Module):
    """A small ArcFace net: an aligned crop of 112 x 112 to an embedding.

    Args:
        dim: Length of the embedding.
        width: Channels after the stem; the other widths follow from it.
    """

    def __init__(self, dim: int = 256, width: int = 32) -> None:
        super().__init__()
        c2, c3 = 5 * width // 2, 4 * width
        self.body = nn.Sequential(
            # Stride 4 at once: the faces of this world are drawn with 20 to 80 pixels.
            nn.Conv2d(3, width, 7, 4, 3, bias=False), nn.BatchNorm2d(width), nn.PReLU(width),
            _Residual(width),
            _Unit(width, c2, 2), _Residual(c2), _Residual(c2),
            _Unit(c2, c3, 2), _Residual(c3),
        )  # fmt: skip
        self.head = nn.Sequential(
            # Global depthwise convolution (MobileFaceNet, Chen et al. 2018): places keep their own weight.
            nn.Conv2d(c3, c3, 7, groups=c3, bias=False), nn.BatchNorm2d(c3), nn.Flatten(),
            nn.Linear(c3, dim, bias=False), nn.BatchNorm1d(dim),
        )  # fmt: skip

    def forward(self, crops: Tensor) -> Tensor:
        """Embeds crops float [B, 3, 112, 112], RGB, (pixel - 127.5) / 127.5, to [B, dim] (not normalised)."""
        return self.head(self.body(crops))


class _DetectorOutputs(nn.Module):
    """The detector in the form insightface expects: nine tensors, scores as probabilities, no batch axis."""

    def __init__(self, net: FaceDetector) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        scores, boxes, landmarks = self.net(pictures)
        return (
            *(score.reshape(-1, 1).sigmoid() for score in scores),
            *(box.reshape(-1, 4) for box in boxes),
            *(points.reshape(-1, 10) for points in landmarks),
        )


def detector_onnx(net: FaceDetector) -> bytes:
    """Returns the ONNX form of the detector; height and width of the picture stay free."""
    names = [f"{what}_{stride}" for what in ("score", "bbox", "kps") for stride in STRIDES]
    axes: dict[str, dict[int, str]] = {"input": {2: "height", 3: "width"}}
    axes.update({name: {0: f"places_{name}"} for name in names})
    return _export(_DetectorOutputs(net), torch.zeros(1, 3, 128, 128), names, axes)


def recogniser_onnx(net: FaceRecogniser) -> bytes:
    """Returns the ONNX form of the recogniser; the batch stays free."""
    return _export(
        net, torch.zeros(1, 3, 112, 112), ["embedding"], {"input": {0: "batch"}, "embedding": {0: "batch"}}
    )


def _export(net: nn.Module, example: Tensor, outputs: list[str], axes: dict[str, dict[int, str]]) -> bytes:
    buffer = io.BytesIO()
    training = {part: part.training for part in net.modules()}
    net.eval()
    with warnings.catch_warnings():
        # The exporter that torch recommends needs another package and gives the same graph here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (example,), buffer,  # type: ignore[arg-type]
            input_names=["input"], output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip
    for part, mode in training.items():
        part.training = mode
    model = onnx.load_from_string(buffer.getvalue())
    _store_half(model.graph)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _store_half(graph: onnx.GraphProto, smallest: int = 256) -> None:
    """Stores big weights as float16 behind a cast, which onnxruntime folds away when it opens the file."""
    casts = []
    for weight in list(graph.initializer):
        if weight.data_type != TensorProto.FLOAT or int(np.prod(weight.dims)) < smallest:
            continue
        half = numpy_helper.from_array(
            numpy_helper.to_array(weight).astype(np.float16), f"{weight.name}_half"
        )
        casts.append(
            helper.make_node("Cast", [half.name], [weight.name], f"Cast_{weight.name}", to=TensorProto.FLOAT)
        )
        graph.initializer.remove(weight)
        graph.initializer.append(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
