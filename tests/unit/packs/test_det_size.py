from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.packs import load_pack
from visavis.packs.face_parts import load_faces


def storybook_faces(**changes):
    pack = load_pack("storybook")
    return load_faces(pack.part("faces"), {**pack.settings("faces"), **changes})


def test_the_detector_looks_at_the_one_size_of_the_settings() -> None:
    assert load_pack("storybook").settings("faces")["det_size"] == [128, 128]
    assert storybook_faces().det_model.input_sizes == [(128, 128)]
    assert storybook_faces(det_size=(192, 64)).det_model.input_sizes == [(192, 64)]


@pytest.mark.parametrize(
    "size", [[0, 0], None, [640], [[128, 128], [640, 640]], [100, 100], [-32, 32], "640"]
)
def test_a_size_that_could_vary_is_an_error(size: object) -> None:
    with pytest.raises(VisavisError, match=r"settings\.det_size"):
        storybook_faces(det_size=size)


def test_a_detector_of_another_fixed_size_is_an_error(tmp_path: Path) -> None:
    import onnx

    part = load_pack("storybook").part("faces")
    folder = tmp_path / "models" / "fixed"
    folder.mkdir(parents=True)
    (folder / "rec.onnx").write_bytes((part / "models/storybook/rec.onnx").read_bytes())
    detector = onnx.load(str(part / "models/storybook/det.onnx"))
    for dimension in detector.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.Clear()
        dimension.dim_value = 128
    onnx.save(detector, str(folder / "det.onnx"))
    assert load_faces(tmp_path, {"det_size": [128, 128]}).det_model.input_sizes == [(128, 128)]
    with pytest.raises(VisavisError, match="128"):
        load_faces(tmp_path, {"det_size": [640, 640]})
