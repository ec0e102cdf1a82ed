"""The model as MLflow serves it, chats in and answers out; MLflow runs this file to load a version."""

from __future__ import annotations

import base64
import io
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel, PythonModelContext


class ServedChats(PythonModel):
    """Holds whole chats: a row is what a user says, round by round; a result is what the model answers."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the model folder that the version carries."""
        from visavis.chat.model import ChatModel

        self.model = ChatModel.from_pretrained(context.artifacts["model"])

    def predict(
        self, context: PythonModelContext, model_input: list[list[str]], params: dict[str, Any] | None = None
    ) -> list[list[dict[str, str]]]:
        """Returns `{"text": ..., "image": base64 PNG or ""}` for each sentence of each chat."""
        return [self._chat(sentences) for sentences in model_input]

    def _chat(self, sentences: list[str]) -> list[dict[str, str]]:
        session = self.model.start()
        answers = []
        for sentence in sentences:
            answer = session.say(sentence)
            answers.append({"text": answer.text, "image": _png(answer.image)})
        return answers


def _png(image: Any) -> str:
    if image is None:
        return ""
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


mlflow.models.set_model(ServedChats())
