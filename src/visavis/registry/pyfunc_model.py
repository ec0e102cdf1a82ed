"""The model as MLflow serves it, chats in and answers out; MLflow runs this file to load a version."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel, PythonModelContext


class ServedChats(PythonModel):
    """Holds whole chats: a row is what a user says, round by round; a result is what the model answers."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the model folder that the version carries."""
        from visavis.chat.model import ChatModel

        self.model = ChatModel.from_pretrained(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: list[list[str]], params: dict[str, Any] | None = None
    ) -> list[list[dict[str, str]]]:
        """Returns `{"text": ..., "image": base64 PNG or ""}` for each sentence of each chat."""
        return [self._chat(sentences) for sentences in model_input]

    def _chat(self, sentences: list[str]) -> list[dict[str, str]]:
        from visavis.chat.session import ChatSession

        session = ChatSession(self.model)
        answers = [session.say(sentence) for sentence in sentences]
        return [{"text": answer.text, "image": _png(answer.picture)} for answer in answers]


def _png(picture: Any) -> str:
    """Returns a uint8 RGB picture [H, W, 3] as base64 PNG, and nothing as an empty text."""
    if picture is None:
        return ""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


mlflow.models.set_model(ServedChats())
