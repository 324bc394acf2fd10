"""The clients that people use, on a real server with real models: OpenAI's own SDK and LangChain."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from atoll.gateway.openai import keys
from tests.gateway.openai.serving import PAID, Echo, as_is, local_models, make_app, served
from tests.inference.local.files import catalogue_file

openai = pytest.importorskip("openai", reason="needs the extra `clients`")

CHAT, EMBED = "smollm2-135m", "minilm-l6"
HELLO: Any = [{"role": "user", "content": "Name three colours."}]
GREEDY: Any = {"model": CHAT, "messages": HELLO, "temperature": 0, "max_tokens": 24}
LOCAL = {"node": "this device", "cost": "0", "checked": "local"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the models of this device."""
    catalogue_file(CHAT)
    catalogue_file(EMBED)
    home = tmp_path_factory.mktemp("home")
    with served(lambda: local_models(home)) as found:
        yield f"{found}/v1"


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    """OpenAI's SDK as people set it up; a server without keys takes any."""
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def said(url: str) -> str:
    """What the model says to GREEDY, asked for without any SDK."""
    text: str = httpx.post(f"{url}/chat/completions", json=GREEDY, timeout=120).json()["choices"][0]["message"][
        "content"
    ]
    assert len(text) > 10
    return text


# -- OpenAI's SDK ------------------------------------------------------------------------------------------------------
def test_models(client: Any) -> None:
    found = {model.id: model for model in client.models.list()}
    assert {CHAT, EMBED} <= set(found)
    assert client.models.retrieve(CHAT) == found[CHAT]
    assert found[CHAT].licence == "Apache-2.0"


def test_a_chat(client: Any, said: str) -> None:
    raw = client.chat.completions.with_raw_response.create(**GREEDY)
    found = raw.parse()
    assert found.choices[0].message.content == said
    assert 0 < found.usage.completion_tokens <= 24
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.atoll == LOCAL
    assert raw.headers["x-atoll-node"] == "this device"


def test_a_stream_with_its_usage(client: Any, said: str) -> None:
    chunks = list(client.chat.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True}))
    text = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(text) == said
    assert len([one for one in text if one]) > 5
    assert chunks[-1].usage.completion_tokens > 5
    assert chunks[-1].atoll == LOCAL
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


def test_the_sdks_own_helper_for_streams(client: Any, said: str) -> None:
    with client.chat.completions.stream(**GREEDY) as stream:
        for _ in stream:
            pass
        found = stream.get_final_completion()
    assert found.choices[0].message.content == said
    assert found.choices[0].finish_reason in ("stop", "length")


def test_the_async_sdk(url: str, said: str) -> None:
    async def story() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            whole = await client.chat.completions.create(**GREEDY)
            stream = await client.chat.completions.create(**GREEDY, stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            return whole.choices[0].message.content, "".join(parts)

    assert asyncio.run(story()) == (said, said)


def test_stop_seed_and_length(client: Any, said: str) -> None:
    word = said.split()[2]
    stopped = client.chat.completions.create(**GREEDY, stop=[word]).choices[0]
    assert stopped.message.content == said[: said.index(word)]
    assert stopped.finish_reason == "stop"
    short = client.chat.completions.create(**{**GREEDY, "max_tokens": 3})
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    drawn = [client.chat.completions.create(**{**GREEDY, "temperature": 1.5}, seed=7, top_p=0.9) for _ in range(2)]
    assert drawn[0].choices[0].message.content == drawn[1].choices[0].message.content


def test_logprobs(client: Any) -> None:
    found = client.chat.completions.create(**{**GREEDY, "max_tokens": 4}, logprobs=True, top_logprobs=3).choices[0]
    assert len(found.logprobs.content) == 4
    for entry in found.logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.token == entry.top_logprobs[0].token  # the likeliest was taken
        assert entry.logprob <= 0
    assert "".join(entry.token for entry in found.logprobs.content) == found.message.content


def test_completions(client: Any) -> None:
    asked: Any = {"model": CHAT, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
    whole = client.completions.create(**asked)
    assert "Paris" in whole.choices[0].text
    assert whole.atoll == LOCAL
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage


def test_responses(client: Any) -> None:
    asked: Any = {"model": CHAT, "input": "Name three colours.", "temperature": 0, "max_output_tokens": 24}
    whole = client.responses.create(**asked)
    assert len(whole.output_text) > 10
    events = list(client.responses.create(**asked, stream=True))
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.output_text == whole.output_text
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    again = [{"role": "user", "content": "Name three colours."}, *whole.output, {"role": "user", "content": "Why?"}]
    assert client.responses.create(**{**asked, "input": again}).usage.input_tokens > whole.usage.input_tokens


def test_embeddings(client: Any) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates went up."]
    usual = client.embeddings.create(model=EMBED, input=texts)  # the SDK asks for base64 and decodes it
    plain = client.embeddings.create(model=EMBED, input=texts, encoding_format="float")
    vectors = np.array([one.embedding for one in usual.data])
    assert vectors.shape == (3, 384)
    assert np.array_equal(vectors, np.array([one.embedding for one in plain.data]))
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    assert usual.usage.total_tokens == usual.usage.prompt_tokens > 15
    assert usual.atoll == LOCAL


def test_a_classifier(url: str) -> None:
    file = io.BytesIO()
    Image.new("L", (28, 28), 40).save(file, "PNG")
    listed = httpx.get(f"{url}/models").json()["data"]
    name = next(one["id"] for one in listed if one["kind"] == "classifier")
    asked = {"model": name, "input": base64.b64encode(file.getvalue()).decode(), "top": 3}
    found = httpx.post(f"{url}/classify", json=asked, timeout=60).json()
    assert len(found["data"][0]["classes"]) == 3
    assert found["atoll"] == LOCAL


def test_errors_are_the_sdks_own_classes(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**{**GREEDY, "model": "nobody"})
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")
    with pytest.raises(openai.BadRequestError, match="one answer a request") as refused:
        client.chat.completions.create(**GREEDY, n=2)
    assert refused.value.param == "n"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=CHAT, input="a language model makes no vectors")
    with pytest.raises(openai.BadRequestError):  # longer than the model reads
        client.completions.create(model=CHAT, prompt="word " * 20_000, max_tokens=1)
    with pytest.raises(openai.APIStatusError) as large:
        client.completions.create(model=CHAT, prompt="x" * (5 << 20))
    assert large.value.status_code == 413


def test_a_stream_that_is_left_stops_the_model(client: Any, url: str) -> None:
    endless = {**GREEDY, "temperature": 1.0, "max_tokens": 4000, "messages": [{"role": "user", "content": "Count."}]}
    with client.chat.completions.create(**endless, stream=True) as stream:
        next(iter(stream))
    short = client.chat.completions.create(**{**GREEDY, "max_tokens": 1}, timeout=20)  # the model is free again
    assert short.usage.completion_tokens == 1
    assert httpx.get(url.replace("/v1", "/health")).json()["waiting"] == 0


def test_keys_and_budgets_in_the_sdk(tmp_path: Path) -> None:
    text = keys.add_key(tmp_path, "laptop", PAID.cost)
    with served(as_is(make_app(Echo(), tmp_path))) as found:
        with (
            openai.OpenAI(base_url=f"{found}/v1", api_key="atoll-wrong") as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
        with openai.OpenAI(base_url=f"{found}/v1", api_key=text, max_retries=0) as client:
            with pytest.raises(openai.APIError, match="ended"):
                list(client.chat.completions.create(model="broken", messages=HELLO, stream=True))
            assert client.chat.completions.create(model="paid", messages=HELLO).atoll["cost"] == str(PAID.cost)
            with pytest.raises(openai.APIStatusError) as spent:
                client.chat.completions.create(model="paid", messages=HELLO)
    assert (spent.value.status_code, spent.value.type) == (402, "insufficient_quota")


# -- LangChain ---------------------------------------------------------------------------------------------------------
def test_langchain(url: str, said: str) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="needs the extra `clients`")
    chat = langchain.ChatOpenAI(base_url=url, api_key="none", model=CHAT, temperature=0, max_tokens=24)
    whole = chat.invoke(HELLO[0]["content"])
    assert whole.content == said
    assert whole.usage_metadata["output_tokens"] > 5
    assert "".join(chunk.content for chunk in chat.stream(HELLO[0]["content"])) == said
    text = langchain.OpenAI(base_url=url, api_key="none", model=CHAT, temperature=0, max_tokens=8)
    assert "Paris" in text.invoke("The capital of France is")


def test_langchains_embeddings(url: str) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="needs the extra `clients`")
    make = langchain.OpenAIEmbeddings
    vectors = make(base_url=url, api_key="none", model=EMBED, check_embedding_ctx_length=False)
    assert np.array(vectors.embed_documents(["one", "two"])).shape == (2, 384)
    assert len(vectors.embed_query("one")) == 384
