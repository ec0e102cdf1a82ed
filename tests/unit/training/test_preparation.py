"""What a recipe changes about the MLLM of the storybook pack before it is tuned."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from visavis.errors import VisavisError
from visavis.models.connectors import PooledConnector
from visavis.models.mllm import Mllm
from visavis.models.resampler import Resampler
from visavis.packs import load_pack
from visavis.packs.loaders import load_mllm
from visavis.recipes import edit, storybook
from visavis.training.preparation import INPUT, lora_of, prepare


@pytest.fixture
def model() -> Mllm:
    return load_mllm(load_pack("storybook"))[0]


def prepared(model: Mllm, stored: int = 256, first: bool = True, **changes: Any) -> list[str]:
    recipe = edit(
        storybook(), {f"mllm_model.{name.replace('__', '.')}": value for name, value in changes.items()}
    )
    return prepare(model, recipe.mllm_model, stored, first=first, seed=0)


def test_the_recipe_as_it_is_changes_nothing(model: Mllm) -> None:
    config, before = model.config, {name: value.clone() for name, value in model.state_dict().items()}
    assert prepared(model, stored=64) == []
    assert model.config == config
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_another_input_connector_begins_untrained_and_only_once(model: Mllm) -> None:
    assert prepared(model, input_connector="resampler") == [INPUT]
    assert isinstance(model.connectors["input"], Resampler)
    assert model.config.input_connector == "resampler"
    assert model.connectors["input"](torch.zeros(1, 256, 64)).shape == (1, 64, 128)
    made = model.connectors["input"]
    assert prepared(model, first=False, input_connector="resampler") == []
    assert model.connectors["input"] is made


def test_a_connector_of_the_same_kind_begins_untrained_if_asked(model: Mllm) -> None:
    trained = model.connectors["input"]
    assert prepared(model, new_input_connector=True) == [INPUT]
    assert isinstance(model.connectors["input"], PooledConnector)
    assert model.connectors["input"] is not trained
    assert prepared(model, first=False, new_input_connector=True) == []


def test_a_resampler_cannot_read_pooled_tokens(model: Mllm) -> None:
    with pytest.raises(VisavisError, match=r"input_connector is resampler.*64 pooled") as told:
        prepared(model, stored=64, input_connector="resampler")
    assert "encode.pooled=false" in str(told.value.fix)


def test_cosine_is_chosen_and_saved(model: Mllm) -> None:
    prepared(model, regression="cosine", views=2)
    assert (model.config.regression, model.config.views) == ("cosine", 2)


def test_a_frozen_llama_takes_no_adapters(model: Mllm) -> None:
    prepared(model, freeze_llm=True)
    assert not any(parameter.requires_grad for parameter in model.llm.parameters())
    assert any(parameter.requires_grad for parameter in model.connectors.parameters())
    with pytest.raises(VisavisError, match=r"freeze_llm=true.*rank=4"):
        prepared(model, freeze_llm=True, lora__rank=4)


def test_adapters_are_put_in_by_rank(model: Mllm) -> None:
    settings = edit(storybook(), {"mllm_model.lora.rank": 4}).mllm_model.lora
    assert lora_of(model, storybook().mllm_model.lora, 0) is None
    assert lora_of(model, settings, 0) is not None
    shapes = {tuple(p.shape) for name, p in model.llm.named_parameters() if "lora_A" in name}
    assert shapes == {(4, 128), (4, 352)}
