"""What is compared: the paper's claims, and what it leaves open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One comparison of the paper.

    Attributes:
        claim_id: Key of the claim's results.
        says: What the paper claims.
        source: Where in the paper.
        paper: The paper's figures in words; says so where it prints none.
        treatment: The arm that should be better.
        control: The arm it is compared with.
        metric: Dotted path in the scorecard; larger is better.
        unit: Unit of the metric.
        smallest: Smallest difference that would matter: a claim is refuted if our interval excludes it.
        paper_difference: The paper's difference in the same metric, where its text prints one. Its pictures and
            face model are others: only the sign compares.
        control_metric: Where the control's figure stands, if in the same scorecard under another path.
    """

    claim_id: str
    says: str
    source: str
    paper: str
    treatment: str
    control: str
    metric: str
    unit: str
    smallest: float
    paper_difference: float | None = None
    control_metric: str | None = None


CLAIMS = (
    Claim(
        claim_id="dit_over_unet",
        says="A DiT detokenizer reconstructs better than the UNet detokenizer (stage 1).",
        source="section 3.1, figure 2",
        paper="PSNR on a COCO-2014 subset: “a significant improvement”; the text prints no figure",
        treatment="DiT detokenizer, from scratch",
        control="UNet detokenizer, from scratch, same tokens, conditioning and budget",
        metric="reconstruction.psnr_db",
        unit="dB",
        smallest=0.1,
    ),
    Claim(
        claim_id="condition_image_helps_unet",
        says="A condition image (stage 2) keeps more of a picture than the UNet alone (stage 1).",
        source="section 3.1, figure 2",
        paper="shown in pictures: it keeps shapes where the condition image is an earlier state of the picture;"
        " no figure printed",
        treatment="UNet detokenizer of stage 2, from scratch",
        control="UNet detokenizer of stage 1, from scratch, same tokens and budget",
        metric="reconstruction.psnr_db",
        unit="dB",
        smallest=0.1,
    ),
    Claim(
        claim_id="dit_over_unet_stage2",
        says="The DiT paints faces better than the UNet with a condition image (stage 2).",
        source="section 3.1, figure 2",
        paper="stage 2 “introduces artifacts and fails to maintain faces”; no figure printed",
        treatment="DiT detokenizer, from scratch",
        control="UNet detokenizer of stage 2, from scratch, same tokens and budget",
        metric="reconstruction.psnr_db_faces_after",
        unit="dB",
        smallest=0.1,
    ),
    Claim(
        claim_id="pooling_costs_detail",
        says="Without pooling (256 tokens instead of 64) the detokenizer reconstructs better.",
        source="section 3.1; results in its supplement, section 7",
        paper="in a supplement that is not part of the paper's text",
        treatment="DiT on 256 tokens",
        control="DiT on 64 tokens",
        metric="reconstruction.psnr_db",
        unit="dB",
        smallest=0.1,
    ),
    Claim(
        claim_id="people_tuning_helps_faces",
        says="Further tuning of the detokenizer on people improves faces.",
        source="section 3.1, figure 2",
        paper="shown in pictures; no figure printed",
        treatment="DiT after tuning on people",
        control="DiT before it",
        metric="reconstruction.psnr_db_faces_after",
        control_metric="reconstruction.psnr_db_faces_before",
        unit="dB",
        smallest=0.1,
    ),
    Claim(
        claim_id="stages_over_direct",
        says="Staged fine-tuning keeps the person better than direct fine-tuning.",
        source="sections 3.2 and 4.2",
        paper="ArcFace 0.114 direct (0.151 with the text), 0.293 for the final staged model; whether all three used one"
        " detokenizer is not said",
        treatment="stages reconstruct, inpaint, pair",
        control="direct fine-tuning on pairs, same number of steps",
        metric="identity.arcface_single_round",
        unit="ArcFace",
        smallest=0.01,
        paper_difference=0.293 - 0.114,
    ),
    Claim(
        claim_id="text_helps_direct",
        says="“Please keep the face identical” in the prompt helps direct fine-tuning.",
        source="section 3.2",
        paper="ArcFace 0.114 → 0.151",
        treatment="direct, with the text",
        control="direct, without it",
        metric="identity.arcface_single_round",
        unit="ArcFace",
        smallest=0.01,
        paper_difference=0.151 - 0.114,
    ),
    Claim(
        claim_id="mse_over_cosine",
        says="Regressing image tokens by mean squared error keeps the person better than by cosine distance.",
        source="section 3: “regression” (SEED-X takes the error, SEED-Story the cosine)",
        paper="not compared",
        treatment="stages with the squared error",
        control="stages with the cosine distance",
        metric="identity.arcface_single_round",
        unit="ArcFace",
        smallest=0.01,
    ),
    Claim(
        claim_id="pooling_over_resampler",
        says="Reading pictures by average pooling keeps the person better than by SEED-X's resampler.",
        source="section 3.1 (pooling); SEED-X reads by a resampler",
        paper="not compared",
        treatment="stages with a new pooling connector",
        control="stages with a new resampler",
        metric="identity.arcface_single_round",
        unit="ArcFace",
        smallest=0.01,
    ),
    Claim(
        claim_id="adaptation_helps",
        says="Tuning the detokenizer on what the MLLM says shows the person better.",
        source="beyond the paper (after SEED-Story)",
        paper="not part of it",
        treatment="after all rounds, with the adapted detokenizer",
        control="after all rounds, with the detokenizer tuned on people",
        metric="identity.arcface_single_round",
        unit="ArcFace",
        smallest=0.01,
    ),
)
"""The claims that `visavis run --ablations` tries."""
