from __future__ import annotations

import json
from pathlib import Path

import pytest

from visavis.errors import VisavisError
from visavis.evaluation.claims import ClaimResult, claims_markdown, write_claims
from visavis.evaluation.comparisons import CLAIMS

STAGES = next(claim for claim in CLAIMS if claim.claim_id == "stages_over_direct")


def result(differences: list[float], note: str = "") -> ClaimResult:
    control = {seed: 0.4 + 0.05 * seed for seed in range(len(differences))}
    treatment = {seed: control[seed] + difference for seed, difference in enumerate(differences)}
    return ClaimResult(STAGES, treatment, control, note)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.10, 0.11, 0.09], "holds"),
        ([-0.05, -0.06, -0.05], "does not hold"),
        ([0.001, 0.000, -0.001], "does not hold"),
        ([0.10, -0.05, 0.02], "undecided"),
        ([0.2], "undecided"),
    ],
)
def test_verdicts_follow_the_interval_over_seeds(differences: list[float], verdict: str) -> None:
    assert result(differences).verdict == verdict


def test_seeds_are_paired() -> None:
    # the arms vary by 0.05 a seed, their difference hardly at all
    assert result([0.02, 0.021, 0.019]).verdict == "holds"
    assert result([0.02, 0.021, 0.019]).difference.value == pytest.approx(0.02)


def test_the_page_and_the_json_say_the_same(tmp_path: Path) -> None:
    results = [result([0.10, 0.11, 0.09], note="Same DiT in both arms."), result([0.001, 0.0, -0.001])]
    write_claims(
        results, tmp_path / "docs" / "claims.md", tmp_path / "claims.json", context="Recipe storybook."
    )
    page = (tmp_path / "docs" / "claims.md").read_text()
    content = json.loads((tmp_path / "claims.json").read_text(), parse_constant=pytest.fail)
    assert [claim["verdict"] for claim in content["claims"]] == ["holds", "does not hold"]
    assert page.count("**holds** |") == 1
    assert "Same DiT in both arms." in page
    assert "Recipe storybook." in page
    first = content["claims"][0]
    assert first["difference"]["n"] == 3
    assert first["difference"]["ci95"][0] > 0
    assert first["treatment"]["by_seed"]["2"] == pytest.approx(0.59)
    assert "+0.100 [+0.075, +0.125]" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_the_papers_figures_are_those_of_its_text() -> None:
    by_id = {claim.claim_id: claim for claim in CLAIMS}
    assert by_id["stages_over_direct"].paper_difference == pytest.approx(0.179)
    assert by_id["text_helps_direct"].paper_difference == pytest.approx(0.037)
    assert by_id["dit_over_unet"].paper_difference is None


def test_arms_need_the_same_seeds_and_finite_figures() -> None:
    with pytest.raises(VisavisError, match=r"seeds \[0\] and \[1\]"):
        ClaimResult(STAGES, {0: 1.0}, {1: 1.0})
    with pytest.raises(VisavisError, match="not finite"):
        ClaimResult(STAGES, {0: float("nan")}, {0: 1.0})


def test_arms_are_read_from_scorecards() -> None:
    def scorecard(before: float, after: float | None) -> dict[str, object]:
        rows = {"psnr_db_faces_before": before, "psnr_db_faces_after": after}
        return {
            "reconstruction": {name: {"value": value, "ci95": None, "n": 1} for name, value in rows.items()}
        }

    claim = next(claim for claim in CLAIMS if claim.claim_id == "people_tuning_helps_faces")
    cards = {seed: scorecard(20 + seed, 22 + seed) for seed in range(3)}
    read = ClaimResult.from_scorecards(claim, cards, cards)
    assert read.difference.value == pytest.approx(2)
    assert read.control[2] == 22
    with pytest.raises(VisavisError, match=r"measured on no item for the seeds \[1\]"):
        ClaimResult.from_scorecards(claim, cards | {1: scorecard(20, None)}, cards)


def test_an_empty_list_is_a_page_too() -> None:
    assert "tried again" in claims_markdown([])
