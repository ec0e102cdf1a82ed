"""The chat page: rounds with pictures, a tree to go back in, candidates to choose from; on the service's engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from fastapi import FastAPI

from visavis.chat.conversation import ASSISTANT, USER, Picture
from visavis.chat.session import EXAMPLES
from visavis.chat.talker import Wish
from visavis.errors import VisavisError
from visavis.serving.app import Service
from visavis.serving.engine import ClosedError, DeadlineError, QueueFullError
from visavis.serving.keys import ApiKey, LimitError
from visavis.serving.page_chats import PageChat, PageChats
from visavis.serving.pictures import from_bytes

_HINT = "Describe two people by name, then ask for a close-up photo of one of them."
_CSS = """
.gradio-container {max-width: 1180px !important; margin: 0 auto !important;}
#head h1 {margin: 0; font-size: 1.5rem; letter-spacing: -.01em} #head p {margin: 0; opacity: .65}
#chat img {width: min(320px, 68vw); height: auto; border-radius: 14px; display: block}
#examples button {white-space: normal; text-align: left; font-weight: 400}
#tree label {font-size: .85rem; white-space: normal} #tree .wrap {flex-direction: column; gap: 4px}
#chat button[title="Share"], #chat button[aria-label="Share"], #chat button[title="Clear"],
#chat button[aria-label="Clear"], footer {display: none !important}
@media (max-width: 640px) {.gradio-container {padding: 8px !important} #examples {flex-direction: column}}
"""
_FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]


def mount(app: FastAPI, service: Service, consent: str) -> FastAPI:
    """Serves the page on `/` of an application.

    Args:
        app: The service; its own routes come first.
        service: What its routes share.
        consent: What a user must agree to before a picture can be uploaded; empty: nothing.
    """
    chats = PageChats()
    page = Page(service, chats, consent)
    theme = gr.themes.Soft(
        primary_hue="teal", neutral_hue="stone", font=_FONTS, font_mono=["ui-monospace", "monospace"]
    )
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page.blocks(),
        path="/",
        theme=theme,
        css=_CSS,
        allowed_paths=[str(chats.folder)],
        ssr_mode=False,
        show_error=True,
        max_file_size="12mb",
        run_history=False,
        footer_links=[],
    )
    return mounted


@dataclass(frozen=True)
class Page:
    """The page's parts and what happens when they are used."""

    service: Service
    chats: PageChats
    consent: str

    def blocks(self) -> gr.Blocks:
        """Returns the page."""
        with gr.Blocks(title="visavis", analytics_enabled=False) as page:
            secret = gr.BrowserState("", storage_key="visavis-chat")
            gr.Markdown(f"# visavis\n{_HINT}", elem_id="head")
            with gr.Row():
                with gr.Column(scale=7, min_width=320):
                    chatbot = gr.Chatbot(
                        elem_id="chat",
                        height="62vh",
                        show_label=False,
                        editable="user",
                        buttons=[],
                        layout="bubble",
                        placeholder="",
                    )
                    box = gr.MultimodalTextbox(
                        elem_id="box",
                        show_label=False,
                        placeholder="Say something, or show a face",
                        file_types=["image"],
                        file_count="multiple",
                        sources=["upload"],
                        autofocus=True,
                        interactive=False,  # until it is known whose chat this is
                    )
                    agreed = gr.Checkbox(label=self.consent, elem_id="consent", visible=bool(self.consent))
                    with gr.Row(elem_id="examples", visible=False) as offered:
                        examples = [gr.Button(words, size="sm", variant="secondary") for words in EXAMPLES]
                with gr.Column(scale=3, min_width=280):
                    about = gr.Markdown(elem_id="about")
                    key = gr.Textbox(
                        label="API key", type="password", elem_id="key", visible=not self.service.keys.open
                    )
                    with gr.Row():
                        undo = gr.Button("Undo", size="sm", min_width=48, elem_id="undo")
                        retry = gr.Button("Retry", size="sm", min_width=48, elem_id="retry")
                        stop = gr.Button("Stop", size="sm", min_width=48, elem_id="stop")
                        new = gr.Button("New", size="sm", min_width=48, elem_id="new")
                    gallery = gr.Gallery(
                        label="Candidates: choose one",
                        elem_id="candidates",
                        columns=4,
                        height=140,
                        allow_preview=False,
                        visible=False,
                        buttons=[],
                    )
                    with gr.Accordion("How pictures are made", open=False, elem_id="wishes"):
                        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                        candidates = gr.Slider(1, 4, 1, step=1, label="Candidates", elem_id="count")
                        identity = gr.Slider(
                            0,
                            2,
                            1,
                            step=0.1,
                            label="Identity",
                            info="0: by the words only · 1: as learned · 2: closest to what was shown",
                        )
                        steps = gr.Slider(0, 20, 0, step=1, label="Steps", info="0: the model's own number")
                    with gr.Accordion("History", open=True):
                        tree = gr.Radio(
                            [], show_label=False, container=False, elem_id="tree", interactive=True
                        )
                        download = gr.DownloadButton("Download the chat", size="sm", elem_id="download")
            wishes = [seed, candidates, identity, steps]
            seen = [chatbot, tree, gallery, download]
            page.load(self.open, [secret], [secret, about, box, offered, *seen])
            sent = [box, agreed, secret, key, *wishes]
            box.submit(self.send, sent, [box, *seen], concurrency_limit=32)
            for button, words in zip(examples, EXAMPLES, strict=True):
                button.click(
                    self.send_example(words), [secret, key, *wishes], [box, *seen], concurrency_limit=32
                )
            retry.click(self.retry, [secret, key, *wishes], [box, *seen], concurrency_limit=32)
            chatbot.edit(self.edit, [secret, key, *wishes], [box, *seen], concurrency_limit=32)
            undo.click(self.undo, [secret], [box, *seen])
            stop.click(self.stop, [secret], None, concurrency_limit=32)
            new.click(self.new, None, [secret, *seen])
            tree.input(self.go, [secret, tree], seen)
            gallery.select(self.choose, [secret], seen)
        return page

    def open(self, secret: str | None) -> tuple[Any, ...]:
        """Shows the chat of a browser, or a new one."""
        chat = self.chats.get(secret)
        about = f"Model **{self.service.model}**"
        box = gr.MultimodalTextbox(interactive=True)
        return chat.secret, about, box, gr.Row(visible=True), *self.seen(chat)

    def new(self) -> tuple[Any, ...]:
        """Begins another chat; the one before is forgotten by this browser."""
        chat = self.chats.get(None)
        return chat.secret, *self.seen(chat)

    def send(
        self, given: dict[str, Any], agreed: bool, secret: str, key: str, *wishes: float
    ) -> Iterator[tuple[Any, ...]]:
        """Says what stands in the box, with the pictures in it."""
        chat = self.chats.get(secret)
        text, files = str(given.get("text") or "").strip(), list(given.get("files") or [])
        if not text and not files:
            yield (gr.skip(), *self.seen(chat))
            return
        if files and self.consent and not agreed:
            gr.Warning("To show a picture, agree to the sentence below the box first.")
            yield (gr.skip(), *self.seen(chat))
            return
        try:
            pictures = [from_bytes(_content(file)) for file in files]
        except VisavisError as error:
            gr.Warning(f"{error.message}; {error.fix}")
            yield (gr.skip(), *self.seen(chat))
            return
        yield from self._said(chat, text, pictures, key, wishes)

    def send_example(self, words: str) -> Any:
        """Returns what a click on an example does."""

        def send(secret: str, key: str, *wishes: float) -> Iterator[tuple[Any, ...]]:
            yield from self._said(self.chats.get(secret), words, [], key, wishes)

        return send

    def retry(self, secret: str, key: str, *wishes: float) -> Iterator[tuple[Any, ...]]:
        """Answers the last message again, with the next seed; the answer before stays in the tree."""
        chat = self.chats.get(secret)
        path = chat.conversation.path()
        if not path:
            yield (gr.skip(), *self.seen(chat))
            return
        seed = int(wishes[0])
        if path[-1].message.role == ASSISTANT:
            used = [int(n.facts["seed"]) for n in chat.conversation.children(path[-1].parent)]
            seed = max(used) + 1
            chat.conversation.before_last(ASSISTANT)
        yield from self._answered(chat, key, (seed, *wishes[1:]))

    def edit(
        self,
        secret: str,
        key: str,
        seed: float,
        candidates: float,
        identity: float,
        steps: float,
        event: gr.EditData,
    ) -> Iterator[tuple[Any, ...]]:
        """Says an earlier message in other words; what followed it stays in the tree."""
        chat = self.chats.get(secret)
        row = event.index[0] if isinstance(event.index, list | tuple) else event.index
        node = chat.conversation.nodes[self._nodes(chat)[row]]
        chat.conversation.go(node.parent)
        pictures, wishes = node.message.pictures, (seed, candidates, identity, steps)
        yield from self._said(chat, str(event.value), pictures, key, wishes)

    def undo(self, secret: str) -> tuple[Any, ...]:
        """Goes back in front of the last message, whose words stand in the box again."""
        chat = self.chats.get(secret)
        try:
            message = chat.conversation.before_last(USER).message
        except VisavisError:
            return gr.skip(), *self.seen(chat)
        return {"text": message.text, "files": []}, *self.seen(chat)

    def stop(self, secret: str) -> None:
        """Stops the answer that is being made."""
        self.chats.get(secret).stop()

    def go(self, secret: str, number: int) -> tuple[Any, ...]:
        """Goes to a message of the tree."""
        chat = self.chats.get(secret)
        chat.conversation.go(int(number))
        return self.seen(chat)

    def choose(self, secret: str, event: gr.SelectData) -> tuple[Any, ...]:
        """Gives the last answer another candidate."""
        chat = self.chats.get(secret)
        if event.index < len(chat.candidates()):
            chat.choose(event.index)
        return self.seen(chat)

    def _said(
        self, chat: PageChat, text: str, pictures: list[Picture], key: str, wishes: tuple[float, ...]
    ) -> Iterator[tuple[Any, ...]]:
        last = chat.conversation.path()[-1:]
        if last and last[0].message.role == USER:  # unanswered: said anew instead
            chat.conversation.go(last[0].parent)
        chat.say(text, pictures)
        yield from self._answered(chat, key, wishes)

    def _answered(self, chat: PageChat, key: str, wishes: tuple[float, ...]) -> Iterator[tuple[Any, ...]]:
        """Shows an answer while it is made, and what went wrong if something did."""
        empty = {"text": "", "files": []}
        entered: ApiKey | None = None
        yield (empty, self.rows(chat, "…"), gr.skip(), gr.skip(), gr.skip())
        try:
            entered = self._enter(key)
            for progress in chat.answer(self.service, _wish(wishes)):
                rows = self.rows(chat, progress.words or "…", progress.picture)
                yield (gr.skip(), rows, gr.skip(), gr.skip(), gr.skip())
        except VisavisError as error:
            gr.Warning(f"{error.message}; {error.fix}")
        except (QueueFullError, LimitError) as error:
            gr.Warning(str(error))
        except DeadlineError:
            gr.Info("Stopped, or too late. Retry answers the message again.")
        except ClosedError:
            gr.Warning("The service is ending.")
        finally:
            if entered is not None:
                self.service.keys.leave(entered)
        yield (gr.skip(), *self.seen(chat))

    def _enter(self, key: str) -> ApiKey | None:
        if self.service.keys.open:
            return None
        owner = self.service.keys.owner(key)
        if owner is None:
            raise VisavisError("this service needs an API key", fix="put yours into the field on the page")
        self.service.keys.enter(owner)
        return owner

    def seen(self, chat: PageChat) -> tuple[Any, ...]:
        """Returns what the page shows of a chat: messages, tree, candidates, the file to download."""
        conversation = chat.conversation
        choices = [(line, number) for number, line in conversation.lines()]
        pictures = [self.chats.shown(self.service, picture, True) for picture in chat.candidates()]
        file = self.chats.folder / f"{chat.secret}.zip"
        file.write_bytes(chat.zipped(self.service))
        return (
            self.rows(chat),
            gr.Radio(choices=choices, value=conversation.head),
            gr.Gallery(value=pictures, visible=bool(pictures)),
            gr.DownloadButton(value=str(file)),
        )

    def rows(self, chat: PageChat, words: str = "", preview: Picture | None = None) -> list[dict[str, Any]]:
        """Returns the messages as gradio shows them, and the answer that is being made."""
        rows: list[dict[str, Any]] = []
        for node in chat.conversation.path():
            role = node.message.role
            for part in node.message.parts:
                content: Any = part
                if not isinstance(part, str):
                    content = self._file(part, role == ASSISTANT)
                rows.append({"role": role, "content": content})
        if words:
            rows.append({"role": ASSISTANT, "content": words})
        if preview is not None:
            rows.append({"role": ASSISTANT, "content": self._file(preview, True)})
        return rows

    def _file(self, picture: Picture, generated: bool) -> dict[str, str]:
        path = self.chats.shown(self.service, picture, generated)
        return {"path": path, "alt_text": "generated picture" if generated else "picture that was shown"}

    def _nodes(self, chat: PageChat) -> list[int]:
        """Returns the node of each row."""
        return [node.number for node in chat.conversation.path() for _ in node.message.parts]


def _wish(values: tuple[float, ...]) -> Wish:
    seed, candidates, identity, steps = values
    return Wish(int(seed), int(candidates), int(steps) or None, identity=float(identity))


def _content(file: Any) -> bytes:
    path = file["path"] if isinstance(file, dict) else file
    with open(path, "rb") as stream:  # noqa: PTH123 - gradio gives the path as text
        return stream.read()
