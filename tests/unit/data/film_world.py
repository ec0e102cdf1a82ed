"""A film of several scenes with people in them."""

from pathlib import Path

import av
import numpy as np
from disc_world import FPS, HEIGHT, WIDTH, Disc, backdrop, paint

# Frames and shade of each scene of a film, and the people in it.
SCENES = [
    (36, 60, [Disc("red", 60), Disc("green", 125)]),
    (3, 220, [Disc("blue", 90)]),
    (60, 120, [Disc("yellow", 60), Disc("pink", 125)]),
    (24, 240, [Disc("cyan", 60), Disc("red", 125)]),
]
STARTS = np.cumsum([0, *(frames for frames, _, _ in SCENES)]) / FPS


def write_film(path: Path, scenes: list[tuple[int, int, list[Disc]]] = SCENES, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frames, shade, discs in scenes:
            image = paint(discs, backdrop(shade, seed=shade))
            for _ in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path
