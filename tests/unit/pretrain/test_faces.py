"""The face nets as insightface reads them, and the arithmetic that training rests on."""

import numpy as np
import pytest
import torch

from visavis.errors import VisavisError
from visavis.files import write_atomic
from visavis.packs.face_parts import load_faces
from visavis.pretrain.face_detector import Faces, Places, detector_loss, mirror
from visavis.pretrain.face_figures import area_under_roc, overlap
from visavis.pretrain.face_nets import (
    ANCHORS,
    STRIDES,
    FaceDetector,
    FaceRecogniser,
    detector_onnx,
    recogniser_onnx,
)
from visavis.pretrain.face_pictures import close_up, look_alike, move_boxes, person_of, twin
from visavis.pretrain.face_recogniser import ArcMargin, view_crops


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """A part with untrained nets."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("faces")
    detector, recogniser = FaceDetector().eval(), FaceRecogniser().eval()
    write_atomic(root / "models/tiny/det.onnx", detector_onnx(detector))
    write_atomic(root / "models/tiny/rec.onnx", recogniser_onnx(recogniser))
    return root, detector, recogniser


def test_nets_are_small():
    assert sum(p.numel() for p in FaceDetector().parameters()) <= 200_000
    assert sum(p.numel() for p in FaceRecogniser().parameters()) <= 600_000


def test_insightface_reads_the_detector(part):
    root, detector, _ = part
    faces = load_faces(root, {"det_size": (128, 128), "threads": 1})
    assert set(faces.models) == {"detection", "recognition"}
    scrfd = faces.det_model
    assert scrfd.use_kps and scrfd._num_anchors == 2 and scrfd._feat_stride_fpn == list(STRIDES)
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    scores, boxes, points = scrfd.forward(image, 0.0)
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    expected = detector((pixels - 127.5) / 128)
    for level, stride in enumerate(STRIDES):
        count = 2 * (128 // stride) ** 2
        assert scores[level].shape == (count, 1) and boxes[level].shape == (count, 4)
        assert points[level].shape == (count, 5, 2)
        np.testing.assert_allclose(scores[level], expected[0][level][0].sigmoid().detach(), atol=2e-3)
        centre = boxes[level][:, :2] + stride * expected[1][level][0, :, :2].detach().numpy()
        grid = (
            np.stack(np.mgrid[: 128 // stride, : 128 // stride][::-1], -1).reshape(-1, 2).repeat(2, 0)
            * stride
        )
        np.testing.assert_allclose(centre, grid, atol=0.1)


def test_the_detector_takes_any_size(part):
    faces = load_faces(part[0], {"det_size": (192, 128)})
    boxes, points = faces.det_model.detect(np.zeros((128, 192, 3), np.uint8), det_thresh=0.0)
    assert len(boxes) == len(points) > 0


def test_insightface_reads_the_recogniser(part):
    root, _, recogniser = part
    model = load_faces(root, {"name": "tiny"}).models["recognition"]
    assert (model.input_size, model.input_mean, model.input_std) == ((112, 112), 127.5, 127.5)
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    pixels = torch.from_numpy(crop[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    expected = recogniser((pixels - 127.5) / 127.5).detach().numpy()
    found = model.get_feat([crop, crop])
    assert found.shape == (2, 256)
    cosine = (found[0] * expected[0]).sum() / np.linalg.norm(found[0]) / np.linalg.norm(expected[0])
    assert cosine > 0.999


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(VisavisError, match=r"settings\.name is 'buffalo_l'"):
        load_faces(tmp_path, {"name": "buffalo_l"})


@pytest.mark.parametrize("size", [12.5, 16.0, 22.0, 36.0, 54.0, 80.0, 120.0])
def test_every_face_has_a_place(size):
    rng = np.random.default_rng(int(size))
    corners = rng.uniform(0, 128 - size, (40, 1, 2))
    boxes = torch.from_numpy(np.concatenate([corners, corners + size], -1)).float()
    truth = Faces(boxes, torch.zeros(40, 1, 5, 2), torch.ones(40, 1, dtype=torch.int8))
    face, counts = Places().assign(truth)
    assert bool((face == 0).any(1).all())
    assert bool(counts[face == 0].all())


def test_a_half_hidden_face_is_not_punished():
    boxes = torch.tensor([[[40.0, 40.0, 80.0, 90.0]]])
    truth = Faces(boxes, torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, dtype=torch.int8))
    face, counts = Places().assign(truth)
    assert not bool((face >= 0).any())
    assert not bool(counts.all())


def test_a_perfect_answer_costs_little():
    places = Places()
    box = torch.tensor([[[40.0, 30.0, 84.0, 86.0]]])
    points = torch.tensor([[[50.0, 50], [74, 50], [62, 60], [52, 72], [72, 72]]])[None]
    truth = Faces(box, points, torch.ones(1, 1, dtype=torch.int8))
    face, _ = places.assign(truth)
    score = torch.where(face >= 0, 12.0, -12.0)[..., None]
    reach = torch.cat([places.centres - box[0, 0, :2], box[0, 0, 2:] - places.centres], -1)[None]
    offset = (points.view(1, 1, 10) - places.centres.repeat(1, 5)) / places.strides[:, None]
    counts = [len(anchors) * (128 // stride) ** 2 for stride, anchors in zip(STRIDES, ANCHORS, strict=True)]
    outputs = [list(t.split(counts, 1)) for t in (score, reach / places.strides[:, None], offset)]
    loss, parts = detector_loss(tuple(outputs), truth, places)
    assert float(loss) < 1e-3, parts


def test_close_up_puts_the_head_in_the_middle():
    mask = np.zeros((128, 128), bool)
    mask[30:70, 20:50] = True
    image = np.full((128, 128, 3), 200, np.uint8)
    result, matrix = close_up(image, mask, margin=1.25)
    np.testing.assert_allclose(
        move_boxes(np.array([20, 30, 50, 70], np.float32), matrix), [25.6, 12.8, 102.4, 115.2], rtol=1e-5
    )
    assert (result[64, 64] == 200).all() and (result[:8] == 128).all() and (result[:, :20] == 128).all()


def test_mirror_keeps_the_order_of_landmarks():
    points = np.array([[[40, 50], [70, 50], [55, 60], [45, 75], [65, 75]]], np.float32)
    boxes = np.array([[30, 30, 80, 90]], np.float32)
    _, mirrored_boxes, mirrored = mirror((np.zeros((128, 128, 3), np.uint8), boxes, points))
    assert mirrored_boxes.tolist() == [[48, 30, 98, 90]]
    assert mirrored[0, :, 0].tolist() == [58, 88, 73, 63, 83]


def test_look_alikes_differ_in_shape_only_where_meant():
    person, other = person_of(1), person_of(2)
    like, same = look_alike(person, other), twin(person, other)
    assert (like.skin, like.hair_style, like.glasses) == (person.skin, person.hair_style, person.glasses)
    assert like.nose_length == same.nose_length == other.nose_length
    assert (same.facial_hair, same.eye_colour, same.mole_side) == (
        person.facial_hair,
        person.eye_colour,
        person.mole_side,
    )
    assert same.skin_shade == person.skin_shade


def test_the_margin_makes_the_own_class_harder():
    torch.manual_seed(0)
    head = ArcMargin(8, 5)
    embeddings, labels = torch.randn(6, 8), torch.arange(6) % 5
    free, strict = head(embeddings, labels, 0.0), head(embeddings, labels, 0.4)
    own = torch.nn.functional.one_hot(labels, 5).bool()
    assert bool((strict[own] < free[own]).all())
    assert torch.equal(strict[~own], free[~own])


def test_views_of_crops_are_reproducible():
    pixels = torch.randint(0, 256, (16, 96, 96, 4), dtype=torch.uint8)
    first, second = (view_crops(pixels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (16, 3, 112, 112) and torch.equal(first, second)
    assert float(first.min()) >= -1 and float(first.max()) <= 1


def test_overlap_and_area():
    box = np.array([[0, 0, 10, 10]], np.float32)
    shares = overlap(box, np.array([[0, 5, 10, 15], [20, 20, 30, 30]], np.float32))
    np.testing.assert_allclose(shares, [[1 / 3, 0]], rtol=1e-5)
    assert area_under_roc([0.9, 0.5], [0.1, 0.5]) == 0.875
