"""A closed-form start for the autoencoder: the best linear code of 8 x 8 blocks, found by regression.

Gradient descent takes minutes to find what linear algebra gives at once. Before training, the net is made nearly
linear (residual blocks closed), the encoder's last convolution is regressed onto the principal components of
picture blocks, and each upsampling block of the decoder onto the picture folded to its grid.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_dc import DCDownBlock2d, DCUpBlock2d, Encoder, ResBlock
from torch import Tensor, nn
from torch.nn import functional

_RIDGE = 1e-4
_MOST_SAMPLES = 60_000
# Beside this constant the picture channels hardly change the root mean square that the last norm divides by.
_CARRIER_CHANNELS, _CARRIER = 4, 20.0
# Lifts the last layer's inputs over zero, so that its ReLU lets them pass.
_LIFT = 2.0


@torch.no_grad()
def linear_start(model: AutoencoderDC, pictures: Tensor) -> None:
    """Sets the weights of a fresh autoencoder, in place.

    Args:
        model: An `AutoencoderDC` of `ResBlock`s without layers in block 0.
        pictures: [N, C, H, W] in [-1, 1]; some hundreds are enough.
    """
    for module in model.modules():
        if isinstance(module, ResBlock):
            nn.init.zeros_(module.norm.weight)
    latents = _start_encoder(model.encoder, pictures)
    decoder = model.decoder
    hidden = decoder.conv_in(latents) + latents.repeat_interleave(decoder.in_shortcut_repeats, dim=1)
    upsamplers = [module for module in decoder.up_blocks.modules() if isinstance(module, DCUpBlock2d)]
    for layer in reversed(upsamplers):
        folded = functional.pixel_unshuffle(pictures, pictures.shape[-1] // (hidden.shape[-1] * layer.factor))
        if layer is upsamplers[0]:
            carrier = torch.full_like(folded[:, :_CARRIER_CHANNELS], _CARRIER)
            folded = torch.cat([folded, carrier], dim=1)
        _start_upsampler(layer, hidden, folded)
        hidden = layer(hidden)
    carried = decoder.conv_out.factor**2 * pictures.shape[1]
    decoder.norm_out.weight[:carried] = _CARRIER * (_CARRIER_CHANNELS / hidden.shape[1]) ** 0.5
    decoder.norm_out.bias[:carried] = _LIFT
    hidden = decoder.conv_act(decoder.norm_out(hidden.movedim(1, -1)).movedim(-1, 1))
    _start_upsampler(decoder.conv_out, hidden, pictures)


def _start_encoder(encoder: Encoder, pictures: Tensor) -> Tensor:
    """Regresses the latents onto principal components of blocks; returns the latents.

    Each component is divided by the root of its deviation, so that fine ones neither vanish beside the mean
    colour nor get the same say; then an orthogonal mixing makes all channels equally strong.
    """
    first = encoder.conv_in.conv
    nn.init.dirac_(first.weight[: pictures.shape[1]])
    hidden = encoder.conv_in(pictures)
    for module in encoder.down_blocks.modules():
        if isinstance(module, DCDownBlock2d):
            nn.init.zeros_(module.conv.weight)
            filters = _components(hidden, module.conv.out_channels)[1]
            module.conv.weight[..., 1, 1] = filters.T
            hidden = module(hidden)
    blocks = functional.pixel_unshuffle(pictures, pictures.shape[-1] // hidden.shape[-1])
    variances, directions = _components(blocks, encoder.conv_out.out_channels)
    scale = variances.pow(-0.25)
    scale *= (variances * scale.square()).mean().rsqrt()
    mixing = torch.linalg.qr(torch.randn(len(scale), len(scale)))[0]
    centred = blocks - blocks.mean(dim=(0, 2, 3), keepdim=True)
    codes = torch.einsum("bchw,cd->bdhw", centred, directions * scale @ mixing)
    shortcut = hidden.unflatten(1, (-1, encoder.out_shortcut_average_group_size)).mean(dim=2)
    _regress(encoder.conv_out, hidden, codes - shortcut)
    latents: Tensor = encoder.conv_out(hidden) + shortcut
    return latents


def _components(inputs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the largest variances [count] over channels and their directions [C, count]."""
    values, vectors = torch.linalg.eigh(torch.cov(inputs.movedim(1, 0).flatten(1)))
    return values[-count:].clamp_min(1e-8), vectors[:, -count:]


def _start_upsampler(layer: DCUpBlock2d, hidden: Tensor, target: Tensor) -> None:
    """Makes the first channels of the output the target; the others keep their random weights."""
    folded = functional.pixel_unshuffle(target, layer.factor)
    if layer.shortcut:
        folded = folded - hidden.repeat_interleave(layer.repeats, dim=1)[:, : folded.shape[1]]
    _regress(layer.conv, hidden, folded)


def _regress(conv: nn.Conv2d, inputs: Tensor, targets: Tensor) -> None:
    """Sets the first output channels of a convolution to the ridge regression of `targets` on `inputs`."""
    size, rows = conv.kernel_size[0], slice(targets.shape[1])
    patches = functional.unfold(inputs, size, padding=size // 2).movedim(1, -1).flatten(0, 1)
    wanted = targets.movedim(1, -1).flatten(0, 2)
    if len(patches) > _MOST_SAMPLES:
        chosen = torch.randperm(len(patches))[:_MOST_SAMPLES]
        patches, wanted = patches[chosen], wanted[chosen]
    patches = torch.cat([patches, torch.ones(len(patches), 1)], dim=1)
    gram = (patches.T @ patches / len(patches)).double()
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.double)
    solution = torch.linalg.solve(gram + ridge, (patches.T @ wanted / len(patches)).double()).float()
    conv.weight[rows] = solution[:-1].T.reshape(-1, *conv.weight.shape[1:])
    assert conv.bias is not None
    conv.bias[rows] = solution[-1]
