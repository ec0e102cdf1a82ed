import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from disc_world import DiscFaces, DiscTalker, make_source

from visavis.data.config import CurateConfig, DescribeConfig
from visavis.data.curation.clips import curate
from visavis.data.describing.caption_rules import NamerReply, parsed
from visavis.data.describing.captions import describe
from visavis.data.describing.chat_namer import ChatNamer
from visavis.data.describing.name_choices import name_choices, name_groups
from visavis.data.describing.namer import Naming, RuleNamer, Spoken, Unnamed
from visavis.data.describing.naming import bundled_names, name_people
from visavis.data.ledger import read_ledger
from visavis.files import read_jsonl

CONFIG = DescribeConfig(names=("Olivia", "Liam", "Emma", "Noah"), name_choices=4)
SPOKEN = Spoken(
    "clip",
    ("She has long red hair, round glasses.", "A man with short black hair and a beard.", "On the beach."),
    (["long red hair", "round glasses"], ["short black hair", "a beard"]),
    "on the beach",
)
CAPTION = "Olivia with her long red hair and Liam with a beard, on the beach"


def reply(caption: str = CAPTION, left: dict | None = None, right: dict | None = None) -> str:
    one = {"name": "Olivia", "pronoun": "she", "evidence": ["long red hair"]} | (left or {})
    two = {"name": "Liam", "pronoun": "he", "evidence": ["a beard"]} | (right or {})
    return json.dumps({"left": one, "right": two, "caption": caption})


class Script:
    """Stands for a chat model: says one line after the other and remembers what it was told."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.chats = list(lines), []

    def __call__(self, messages):
        self.chats.append([dict(message) for message in messages])
        return self.lines.pop(0)


def named(*lines: str, spoken: Spoken = SPOKEN, **changes) -> tuple[Naming | Unnamed, Script]:
    script = Script(*lines)
    return ChatNamer(script, CONFIG.model_copy(update=changes))(spoken), script


def test_a_good_answer_passes_with_its_evidence() -> None:
    found, script = named(reply())
    assert isinstance(found, Naming) and found.caption.text == CAPTION
    assert found.caption.names == ("Olivia", "Liam") and found.caption.order == (0, 1)
    assert found.caption.style == "both_looks" and found.pronouns == ("she", "he")
    row = found.row(SPOKEN)
    assert row["evidence"] == [
        {"person": 0, "name": "Olivia", "by": "looks", "phrases": ["long red hair"]},
        {"person": 1, "name": "Liam", "by": "looks", "phrases": ["a beard"]},
    ]
    assert row["mentions"] == [{"looks": True, "side": False}] * 2 and row["pronouns"] == ["she", "he"]
    (chat,) = script.chats
    assert [message["role"] for message in chat] == ["user"]
    asked = chat[0]["content"]
    assert json.dumps(NamerReply.model_json_schema(), sort_keys=True) in asked
    assert "long red hair; round glasses" in asked and "on the beach" in asked
    assert all(name in asked for name in CONFIG.names or ())


BAD = {
    "broken JSON": ('{"left": {"name": "Olivia"', "JSON"),
    "words around it": (f"Here you are: {reply()}", "JSON"),
    "a field too many": (reply(left={"age": 3}), "left.age"),
    "a pronoun of another kind": (reply(left={"pronoun": "it"}), "left.pronoun"),
    "a wrong type": (reply(left={"evidence": "long red hair"}), "left.evidence"),
    "a name that was not offered": (
        reply(CAPTION.replace("Olivia", "Sophia"), left={"name": "Sophia"}),
        "Sophia cannot be chosen; choose from: ",
    ),
    "three names": (reply(CAPTION + " with Emma"), "Emma is a third name"),
    "three names, one unknown": (reply(CAPTION + " near Zorblax"), "Zorblax looks like a name"),
    "the same name for both": (reply(right={"name": "Olivia"}), "both people have the name Olivia"),
    "a name twice": (reply(CAPTION + " by Olivia"), "Olivia 2 times"),
    "a name missing": (reply("Olivia with her long red hair and a man with a beard"), "Liam not at all"),
    "a pronoun clash": (
        reply(CAPTION.replace("her", "his")),
        "'his' would be Olivia, whose pronoun you gave as she",
    ),
    "a pronoun that was not stated": (
        reply(left={"pronoun": "none"}),
        "'her' would be Olivia, whose pronoun you gave as none",
    ),
    "a pronoun against the answer": (
        reply("Olivia with long red hair and Liam with her beard", right={"pronoun": "she"}),
        "the pronoun of Liam is she, but they were described as he",
    ),
    "plural too early": (
        reply("Olivia with their long red hair and Liam with a beard"),
        "'their' would be Olivia",
    ),
    "evidence of nobody": (
        reply(left={"evidence": ["green eyes"]}),
        "'green eyes' is no evidence for Olivia",
    ),
    "evidence of the other one": (
        reply(left={"evidence": ["a beard"]}),
        "'a beard' is no evidence for Olivia",
    ),
    "evidence that is not said": (
        reply(left={"evidence": ["round glasses"]}),
        "must say 'round glasses' after Olivia",
    ),
    "names bound to the wrong faces": (
        reply("Olivia with a beard and Liam with long red hair"),
        "but it was said of the other person",
    ),
    "the wrong side": (
        reply("Olivia on the right with long red hair and Liam with a beard"),
        "Olivia is on the left, not on the right",
    ),
    "nothing to tell them apart": (
        reply("Olivia and Liam on the beach", {"evidence": []}, {"evidence": []}),
        "nothing tells the two people apart",
    ),
    "too long": (reply(CAPTION + " and sand" * 40), "words; 60 are the most"),
    "signs of the template": (reply(CAPTION + " <img>"), "plain words"),
    "two lines": (reply(CAPTION + "\nBye"), "plain words"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_broken_rule_is_told_to_the_model_which_then_does_better(kind: str) -> None:
    bad, told = BAD[kind]
    found, script = named(bad, reply())
    assert isinstance(found, Naming) and found.caption.text == CAPTION
    assert len(script.chats) == 2
    *_, said, wrong = script.chats[1]
    assert said == {"role": "assistant", "content": bad}
    assert wrong["role"] == "user" and told in wrong["content"]


@pytest.mark.parametrize("kind", BAD)
def test_a_model_that_never_learns_fails_with_every_reason(kind: str) -> None:
    bad, told = BAD[kind]
    found, script = named(*[bad] * 3, namer_retries=2)
    assert isinstance(found, Unnamed) and found.reason == "namer_failed"
    assert len(script.chats) == len(found.detail["violations"]) == 3
    assert all(told in " ".join(attempt) for attempt in found.detail["violations"])


@pytest.mark.parametrize(
    ("caption", "people"),
    [
        ("Liam has a beard. Olivia has long red hair. She smiles, he laughs", ({}, {})),
        ("Near their car, Olivia with long red hair and Liam with a beard on the left", None),
        (
            "Olivia with long red hair and Liam with a beard, on their beach",
            ({"pronoun": "none"}, {"pronoun": "none"}),
        ),
        ("Olivia with long red hair and Liam, on the beach", ({}, {"evidence": []})),
        ("Olivia on the left and Liam on the right", ({"evidence": []}, {"evidence": []})),
        (
            "Olivia's long red hair and Liam with his Beard",
            ({"evidence": ["Long red hair"]}, {"evidence": ["beard"]}),
        ),
    ],
)
def test_captions_of_many_forms_pass_or_fail(caption: str, people: tuple[dict, dict] | None) -> None:
    found, _ = named(reply(caption, *(people or ())), namer_retries=0)
    assert isinstance(found, Naming) == (people is not None), found


def test_a_person_may_be_who_remains_or_be_told_by_side() -> None:
    found, _ = named(reply("Olivia with long red hair and Liam, on the beach", {}, {"evidence": []}))
    assert isinstance(found, Naming) and found.caption.style == "one_looks"
    assert [one.by for one in found.evidence()] == ["looks", "other"]
    found, _ = named(reply("Liam on the right and Olivia on the left", {"evidence": []}, {"evidence": []}))
    assert isinstance(found, Naming) and found.caption.style == "sides"
    assert found.caption.order == (1, 0) and found.sides == (True, True)
    found, _ = named(
        reply("Olivia on the left with long red hair and Liam on the right", {}, {"evidence": []})
    )
    assert isinstance(found, Naming) and found.caption.style == "mixed"
    assert found.row(SPOKEN)["mentions"] == [{"looks": True, "side": True}, {"looks": False, "side": True}]


def test_people_who_look_alike_are_not_even_asked_about() -> None:
    alike = Spoken("clip", ("a cap", "a cap", ""), (["a cap"], ["a cap"]), None)
    found, script = named(spoken=alike)
    assert isinstance(found, Unnamed) and found.reason == "looks_not_distinct" and not script.chats


def test_a_fence_around_the_json_is_the_only_thing_that_may_be_there() -> None:
    assert isinstance(parsed(f"```json\n{reply()}\n```"), NamerReply)
    assert isinstance(parsed(reply() + reply()), list)
    assert isinstance(parsed("null"), list) and isinstance(parsed(""), list)


def test_the_rule_namer_writes_what_the_rules_write() -> None:
    for index in range(200):
        spoken = Spoken(f"clip{index}", SPOKEN.answers, SPOKEN.phrases, SPOKEN.place)
        found = RuleNamer(DescribeConfig())(spoken)
        assert isinstance(found, Naming)
        assert found.caption == name_people(spoken.clip_id, spoken.phrases, spoken.place, DescribeConfig())
        for person, one in enumerate(found.evidence()):
            assert one.name == found.caption.names[person] and one.phrases == found.caption.used[person]
            assert set(one.phrases) <= set(spoken.phrases[person])
            assert bool(one.phrases) == (one.by == "looks")


def test_the_groups_are_the_bundled_names_and_hold_the_balance_that_is_stated() -> None:
    groups = name_groups()
    everyone = [name for names in groups.values() for name in names]
    assert sorted(everyone) == sorted(bundled_names()) and len(everyone) == len(set(everyone)) == 217
    shares = {group: len(names) / len(everyone) for group, names in groups.items()}
    assert abs(shares["feminine"] - shares["masculine"]) < 0.05 and shares["either"] > 0.05
    initials = Counter(name[0] for name in everyone)
    assert len(initials) == 24 and not {"U", "X"} & set(initials)
    assert initials.most_common(1)[0] == ("A", 31)


def test_the_choices_hold_every_group_alike() -> None:
    use = {name: group for group, names in name_groups().items() for name in names}
    drawn: Counter[str] = Counter()
    for index in range(300):
        choices = name_choices(f"clip{index}", DescribeConfig())
        assert len(choices) == len(set(choices)) == 6
        assert Counter(use[name] for name in choices) == {"feminine": 2, "masculine": 2, "either": 2}
        drawn.update(choices)
    assert len(drawn) > 200, "nearly every name has its turn"
    assert name_choices("clip", DescribeConfig()) == name_choices("clip", DescribeConfig())
    assert name_choices("clip", DescribeConfig()) != name_choices("clip", DescribeConfig(seed=1))
    own = DescribeConfig(names=("Zuri", "Zuri", "Olivia"))
    assert sorted(name_choices("clip", own)) == ["Olivia", "Zuri"]


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curated")
    curate(make_source(root / "source", 3), root / "out", CurateConfig(workers=0), DiscFaces())
    return root / "out"


class Reader:
    """Stands for a chat model that does what it is told: takes names and phrases out of the message."""

    def __call__(self, messages):
        lines = messages[0]["content"].partition("\n\n")[2].splitlines()
        names = lines[0].partition(": ")[2].split(", ")
        left, right = (lines[i].partition(": ")[2].split("; ")[0] for i in (2, 4))
        people = {
            side: {"name": name, "pronoun": "none", "evidence": [phrase]}
            for side, name, phrase in zip(("left", "right"), names, (left, right), strict=False)
        }
        caption = f"{names[1]} with {right} and {names[0]} with {left}, {lines[5].partition(': ')[2]}"
        return json.dumps({**people, "caption": caption})


def test_a_chat_namer_captions_curated_clips(curated: Path, tmp_path: Path) -> None:
    config = DescribeConfig()
    counts = describe(curated, tmp_path, config, DiscTalker(), namer=ChatNamer(Reader(), config))
    assert counts == {"in": 3, "kept": 3, "dropped": {}}
    for row in read_jsonl(tmp_path / "captions.jsonl"):
        assert row["order"] == [1, 0] and len(set(row["names"])) == 2
        for person, one in enumerate(row["evidence"]):
            assert one["phrases"] and set(one["phrases"]) <= set(row["phrases"][person])
            assert f"{one['name']} with {one['phrases'][0]}" in row["caption"]


def test_namers_that_fail_or_break_drop_the_clip_and_nothing_else(curated: Path, tmp_path: Path) -> None:
    config = DescribeConfig(namer_retries=1)
    stubborn = ChatNamer(lambda messages: "no", config)
    counts = describe(curated, tmp_path / "a", config, DiscTalker(), namer=stubborn)
    assert counts["dropped"] == {"namer_failed": 3}
    (row, *_) = read_ledger(tmp_path / "a" / "ledger.jsonl")
    assert len(row.detail["violations"]) == 2 and "JSON" in row.detail["violations"][0][0]

    def broken(messages):
        raise RuntimeError("out of memory")

    counts = describe(curated, tmp_path / "b", config, DiscTalker(), namer=ChatNamer(broken, config))
    assert counts["dropped"] == {"namer_failed": 3}


def test_no_namer_can_smuggle_in_a_third_name(curated: Path, tmp_path: Path) -> None:
    class Smuggler(RuleNamer):
        def __call__(self, spoken):
            found = super().__call__(spoken)
            assert isinstance(found, Naming)
            text = f"{found.caption.text} with Olivia and Liam"
            return replace(found, caption=replace(found.caption, text=text))

    counts = describe(curated, tmp_path, DescribeConfig(), DiscTalker(), namer=Smuggler(DescribeConfig()))
    assert counts["dropped"] == {"names_not_two": 3}
