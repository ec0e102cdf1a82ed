from __future__ import annotations

import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from visavis.evaluation.figures import ChatRound, chat_sheet, labelled_grid, names_in
from visavis.evaluation.intervals import Figure
from visavis.evaluation.labels import format_number, label_of
from visavis.evaluation.plots import scorecard_plot, training_curves
from visavis.evaluation.report import write_report
from visavis.evaluation.scorecard import Scorecard, iterate
from visavis.evaluation.style import PAPER, PEOPLE, Word, line_width, plain, wrap

from .conftest import person

ASKED = (
    "Generate an image: Olivia with long red hair and Julian in a blue cap, on the beach",
    "Generate a close-up photo of Julian",
    "Generate a close-up photo of Olivia",
)


def chat(extra: str = "") -> list[ChatRound]:
    return [ChatRound(asked + extra, person("olivia"), truth=person("julian")) for asked in ASKED]


def has(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image.convert("RGB")) == colour).all(axis=-1).any())


def edge(image: Image.Image, width: int = 6) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB"))
    sides = (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:])
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def card() -> Scorecard:
    def figure(value: float, chance: float | None = None) -> Figure:
        return Figure(value, (value - 0.1, value + 0.1), 40, chance)

    return Scorecard(
        sections={
            "reconstruction": {
                "psnr_db": figure(23.4),
                "psnr_db_faces_before": figure(20),
                "psnr_db_faces_after": figure(24),
            },
            "identity": {
                "arcface_single_round": figure(0.6),
                "arcface_to_other": figure(0.0),
                "margin": figure(0.6),
                "detection_rate": figure(0.9),
            },
            "alignment": {"clip_score": figure(28.6)},
            "rounds": {
                "right_person_accuracy": figure(0.8, 0.5),
                "right_person_accuracy_undescribed": Figure.missing(0.5),
                "image_ablation": figure(0.5, 0.5),
                "slices": {"round_3": figure(0.8, 0.5), "described": figure(0.8, 0.5)},
            },
        },
        counts={"rounds": 40},
        seed=0,
        policies={"no_face": "zero"},
        about={"recipe": "<storybook>"},
    )


def test_names_are_found_by_their_return() -> None:
    assert names_in(ASKED) == ("Olivia", "Julian")
    assert names_in(ASKED[:1]) == ()
    assert names_in([]) == ()


def test_a_chat_highlights_its_people_and_clips_nothing() -> None:
    sheet = chat_sheet([chat(), chat(" standing in front of a very long wall of words that goes on and on")])
    assert has(sheet, PEOPLE[0])
    assert has(sheet, PEOPLE[1])
    assert (edge(sheet) == PAPER).all()
    assert chat_sheet([chat()]).width < sheet.width


def test_words_never_leave_their_line() -> None:
    words = [
        *plain("a close-up photo of somebody with a rather long description"),
        Word("Olivia", (0, 0, 0), True),
    ]
    lines = wrap(words, 12.5, 120)
    assert [word for line in lines for word in line] == words
    assert all(line_width(line, 12.5) <= 120 for line in lines)


def test_nothing_to_show_is_said_in_words() -> None:
    assert chat_sheet([[]]).width > 200
    assert chat_sheet([]).width > 200
    assert labelled_grid({"nothing": []}).width > 200


def test_a_grid_has_a_row_for_each_label() -> None:
    rows = {"the face given": [person("mia")] * 3, "after stage pair": [person("mia"), None, person("noah")]}
    two = labelled_grid(rows, 64)
    one = labelled_grid({"the face given": rows["the face given"]}, 64)
    assert two.height - one.height == 2 * (64 + 8)
    assert two.width == one.width
    assert (
        labelled_grid(rows, 64, columns=["a caption"] * 3, notes={"the face given": ["23 dB"]}).height
        > two.height
    )
    assert (edge(two) == PAPER).all()


def test_curves_of_every_length_are_drawn() -> None:
    noisy = [(step, 1 / (1 + step)) for step in range(200)]
    plot = training_curves(
        {"loss": {"train": noisy, "val": noisy[::20]}, "empty": {"none": []}, "one": {"a": [(1, 2)]}}
    )
    assert len(plot.axes) == 3
    assert plot.axes[0].get_yscale() == "log"
    plot.savefig(io.BytesIO())
    training_curves({}).savefig(io.BytesIO())


def test_the_scorecard_is_drawn_without_what_was_not_measured() -> None:
    plot = scorecard_plot(card())
    labels = [label.get_text() for axes in plot.axes for label in axes.get_yticklabels()]
    assert any("right person accuracy" in label for label in labels)
    assert not any("looks undescribed" in label for label in labels)
    assert not any("PSNR" in label for label in labels)
    plot.savefig(io.BytesIO())


def test_headlines_come_first_even_from_a_sorted_file() -> None:
    content = card().to_dict()
    content["rounds"] = dict(sorted(content["rounds"].items()))
    rounds = [path for path, _ in iterate(content) if path.startswith("rounds.")]
    assert rounds[0] == "rounds.right_person_accuracy"
    assert rounds[-2:] == ["rounds.slices.described", "rounds.slices.round_3"]


@pytest.mark.parametrize(
    ("path", "words", "shown"),
    [
        ("rounds.slices.hair_colour.red", "· hair colour: red", "25.0 %"),
        ("rounds.gap.hair_colour", "gap: hair colour", "25.0 %"),
        ("rounds.confusion.asked_left.shown_right", "asked left: shown right", "25.0 %"),
        ("rounds.shown.no_face", "shown: no face", "25.0 %"),
        ("identity.slices.glasses.round", "· glasses: round", "0.250"),
        ("identity.gap.glasses", "gap: glasses", "0.250"),
        ("groups.face_changing.clip_t", "face changing: CLIP-T", "0.25"),
        ("groups.easy.detection_rate", "easy: detection rate", "25.0 %"),
        ("retention.to_first_close_up.round_3", "to the first close-up, round 3", "0.250"),
        ("reconstruction.kid_clip", "kernel distance of CLIP features", "0.2500"),
    ],
)
def test_deep_paths_have_words_and_their_unit(path: str, words: str, shown: str) -> None:
    assert label_of(path) == words
    assert format_number(path, 0.25) == shown


def test_slices_by_attribute_are_looked_up_and_not_drawn() -> None:
    content = card().to_dict()
    row = content["rounds"]["right_person_accuracy"]
    content["rounds"]["slices"]["hair_colour"] = {"red": row}
    content["rounds"]["confusion"] = {"asked_left": {"neither": row}}
    content["retention"] = {"round_2": content["identity"]["arcface_single_round"]}
    full = Scorecard.from_dict(content)
    labels = [text.get_text() for axes in scorecard_plot(full).axes for text in axes.get_yticklabels()]
    assert any("round 2  (retention)" in label for label in labels)
    assert not any("hair" in label or "asked left" in label for label in labels)
    page = write_report("run", full, {})
    assert page.index("Whom close-ups show") < page.index("asked left: neither")
    assert "hair colour: red" in page


class Page(HTMLParser):
    """Collects sources and checks that tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_self_contained_page() -> None:
    text = write_report(
        "visavis: storybook",
        card(),
        {"Three rounds": chat_sheet([chat()])},
        funnel={"steps": [{"step": "curate_clips", "in": 10, "kept": 7, "dropped": {"too_far_apart": 3}}]},
        timings={
            "seconds": 2.5,
            "steps": [{"step": "a", "status": "ran", "seconds": 2.5, "peak_rss_mb": 100.0}],
        },
        look_next=[("Curves", "visavis ui")],
    )
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    for words in (
        "80.0 %",
        "3 too far apart",
        "2.5 s",
        "visavis ui",
        "prefers-color-scheme",
        "&lt;storybook&gt;",
    ):
        assert words in text
    assert "nan" not in text.lower().split("base64")[0]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>"])
def test_the_report_escapes_what_it_is_given(text: str) -> None:
    assert text not in write_report(text, card(), {text: Image.new("RGB", (8, 8))}, look_next=[(text, text)])
