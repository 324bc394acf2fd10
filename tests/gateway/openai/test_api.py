"""The API over HTTP: bodies of answers, streams, and every way in which a request is refused."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from atoll.gateway.openai import keys
from tests.gateway.openai.serving import PAID, Echo, make_app

CHAT = "/v1/chat/completions"
HELLO = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two three"}]
LOCAL = {"node": "this device", "cost": "0", "checked": "local"}


def ask(path: str, body: Any = None, home: Path | None = None, method: str = "", **more: Any) -> httpx.Response:
    """One request to the API in this process; `client` is the address that it comes from."""
    source = more.pop("client", "127.0.0.1")

    async def request() -> httpx.Response:
        app = make_app(Echo(), home or Path("nowhere-at-all"))
        transport = httpx.ASGITransport(app, client=(source, 1000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            given = {"json": body} if body is not None else {}
            return await client.request(method or ("GET" if body is None else "POST"), path, **given, **more)

    return asyncio.run(request())


def problem(response: httpx.Response) -> dict[str, Any]:
    found = response.json()
    assert list(found) == ["error"]
    assert set(found["error"]) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = found["error"]
    return error


def events(response: httpx.Response) -> list[Any]:
    """The data of all events."""
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in response.text.split("\n\n") if block]
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("data: ")]
    texts = [line.removeprefix("data: ") for line in lines]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


# -- models ------------------------------------------------------------------------------------------------------------
def test_models_are_listed_and_shown() -> None:
    found = ask("/v1/models").json()
    assert found["object"] == "list"
    assert [one["id"] for one in found["data"]] == list(Echo.kinds)
    one = ask("/v1/models/echo").json()
    assert one == found["data"][0]
    assert one | {"created": 0} == {
        "id": "echo", "object": "model", "created": 0, "owned_by": "atoll", "kind": "language", "blob": "", "bytes": 1,
        "licence": "CC0-1.0", "context": 64,
    }  # fmt: skip


def test_an_unknown_model_is_404() -> None:
    for response in (
        ask("/v1/models/nobody%2Fnothing"),
        ask("/v1/models/no%0Abody"),
        ask(CHAT, {"model": "nobody", "messages": HELLO}),
        ask(CHAT, {"model": "nobody", "messages": HELLO, "stream": True}),
        ask("/v1/embeddings", {"model": "nobody", "input": "x"}),
        ask("/v1/classify", {"model": "nobody", "input": "x"}),
    ):
        assert response.status_code == 404
        assert problem(response)["code"] == "model_not_found"
        assert problem(response)["param"] == "model"


# -- chat --------------------------------------------------------------------------------------------------------------
def test_a_chat_answer() -> None:
    response = ask(CHAT, {"model": "echo", "messages": HELLO})
    found = response.json()
    assert found.pop("id").startswith("chatcmpl-")
    assert found.pop("created") > 1_700_000_000
    assert found == {
        "object": "chat.completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "one two three", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
        "atoll": LOCAL,
    }
    assert response.headers["x-atoll-node"] == "this device"
    assert response.headers["x-atoll-cost"] == "0"
    assert response.headers["x-atoll-checked"] == "local"


def test_who_answered_at_what_price_is_told() -> None:
    response = ask(CHAT, {"model": "paid", "messages": HELLO})
    told = {"node": PAID.node, "cost": "3000000000000000007", "checked": "yes"}
    assert response.json()["atoll"] == told
    assert {name: response.headers[f"x-atoll-{name}"] for name in told} == told


def test_a_chat_stream() -> None:
    chunks = events(ask(CHAT, {"model": "echo", "messages": HELLO, "stream": True}))
    assert chunks.pop() == "[DONE]"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [
        {"role": "assistant", "content": ""}, {"content": "one"}, {"content": " two"}, {"content": " three"}, {},
    ]  # fmt: skip
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["stop"]
    assert [chunk.get("atoll") for chunk in chunks] == [None] * 4 + [LOCAL]


def test_a_stream_tells_its_tokens_if_asked() -> None:
    asked = {"model": "echo", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    chunks = events(ask(CHAT, asked))
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert chunks[-2]["atoll"] == LOCAL


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_ends_the_answer(name: str) -> None:
    choice = ask(CHAT, {"model": "echo", "messages": HELLO, name: 2}).json()["choices"][0]
    assert choice["message"]["content"] == "one two"
    assert choice["finish_reason"] == "length"


def test_a_whole_number_may_be_written_as_a_fraction() -> None:
    found = ask(CHAT, {"model": "echo", "messages": HELLO, "max_tokens": 2.0, "temperature": 1}).json()
    assert found["usage"]["completion_tokens"] == 2
    assert problem(ask(CHAT, {"model": "echo", "messages": HELLO, "max_tokens": 2.5}))["param"] == "max_tokens"
    broken = b'{"max_tokens": 2.0, "model": }'
    response = ask(CHAT, method="POST", content=broken, headers={"content-type": "application/json"})
    assert problem(response)["code"] == "invalid_json"


def test_logprobs_of_a_chat() -> None:
    asked = {"model": "echo", "messages": [{"role": "user", "content": "hé"}], "logprobs": True, "top_logprobs": 2}
    entry = {"token": "hé", "logprob": -0.5, "bytes": [104, 195, 169]}
    other = {"token": "héhé", "logprob": -1.5, "bytes": [104, 195, 169] * 2}
    assert ask(CHAT, asked).json()["choices"][0]["logprobs"] == {
        "content": [{**entry, "top_logprobs": [entry, other]}], "refusal": None,
    }  # fmt: skip
    without = ask(CHAT, asked | {"top_logprobs": 0}).json()["choices"][0]["logprobs"]
    assert without["content"] == [{**entry, "top_logprobs": []}]
    streamed = events(ask(CHAT, asked | {"stream": True}))
    assert streamed[1]["choices"][0]["logprobs"]["content"][0]["token"] == "hé"


def test_parts_of_a_message_are_read_as_one_text() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    found = ask(CHAT, {"model": "echo", "messages": [{"role": "user", "content": parts}]}).json()
    assert found["choices"][0]["message"]["content"] == "one two"


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    said = ask(CHAT, {"model": "echo", "messages": HELLO}).json()["choices"][0]["message"]
    assert ask(CHAT, {"model": "echo", "messages": [*HELLO, said]}).status_code == 200


def test_a_failure_amid_a_stream_is_an_event() -> None:
    chunks = events(ask(CHAT, {"model": "broken", "messages": HELLO, "stream": True}))
    assert chunks[-1]["error"]["code"] == "engine_failed"
    whole = ask(CHAT, {"model": "broken", "messages": HELLO})
    assert whole.status_code == 500
    assert problem(whole)["type"] == "server_error"


# -- completions -------------------------------------------------------------------------------------------------------
def test_completions_of_several_texts() -> None:
    found = ask("/v1/completions", {"model": "paid", "prompt": ["a b", "c"], "logprobs": 1}).json()
    assert found["object"] == "text_completion"
    assert [choice["text"] for choice in found["choices"]] == ["a b", "c"]
    assert [choice["index"] for choice in found["choices"]] == [0, 1]
    assert found["choices"][0]["logprobs"] == {
        "tokens": ["a", " b"], "token_logprobs": [-0.5, -0.5], "top_logprobs": [{"a": -0.5}, {" b": -0.5}],
        "text_offset": [0, 1],
    }  # fmt: skip
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert found["atoll"]["cost"] == str(2 * PAID.cost)


def test_a_stream_of_completions() -> None:
    asked = {"model": "echo", "prompt": ["a b", "c"], "stream": True, "stream_options": {"include_usage": True}}
    chunks = events(ask("/v1/completions", asked))
    assert chunks.pop() == "[DONE]"
    assert chunks.pop()["usage"]["total_tokens"] == 6
    said = [(chunk["choices"][0]["index"], chunk["choices"][0]["text"]) for chunk in chunks]
    assert said == [(0, "a"), (0, " b"), (0, ""), (0, ""), (1, "c"), (1, ""), (1, "")]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["atoll"] == LOCAL


# -- responses ---------------------------------------------------------------------------------------------------------
def test_a_response() -> None:
    asked = {"model": "echo", "instructions": "be brief", "input": "one two three", "max_output_tokens": 2}
    found = ask("/v1/responses", asked).json()
    assert (found["object"], found["status"]) == ("response", "incomplete")
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}
    assert found["output"][0]["content"][0]["text"] == "one two"
    assert (found["usage"]["input_tokens"], found["usage"]["output_tokens"]) == (5, 2)
    assert found["atoll"] == LOCAL


def test_the_events_of_a_response() -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "one two"}]}]
    chunks = events(ask("/v1/responses", {"model": "echo", "input": items, "stream": True}))
    assert [chunk["type"].removeprefix("response.") for chunk in chunks] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [chunk["sequence_number"] for chunk in chunks] == list(range(10))
    whole = chunks[-1]["response"]
    assert whole["output"][0]["content"][0]["text"] == "".join(chunk["delta"] for chunk in chunks[4:6]) == "one two"
    assert whole["id"] == chunks[0]["response"]["id"]
    assert whole["atoll"] == LOCAL
    assert ask("/v1/responses", {"model": "echo", "input": [*items, *whole["output"]]}).status_code == 200


# -- embeddings and classes --------------------------------------------------------------------------------------------
def test_vectors_as_numbers_and_in_base64() -> None:
    found = ask("/v1/embeddings", {"model": "counts", "input": ["a b", "c"]}).json()
    assert found["data"][0]["embedding"] == [3.0, 1.0, float(np.float32(0.1))]
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    coded = ask("/v1/embeddings", {"model": "counts", "input": "a b", "encoding_format": "base64"}).json()
    data = base64.b64decode(coded["data"][0]["embedding"])
    assert data == np.array([3, 1, 0.1], "<f4").tobytes()


def picture(value: int) -> str:
    file = io.BytesIO()
    Image.new("L", (8, 8), value).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_classes_of_pictures() -> None:
    asked = {"model": "brightness", "input": [picture(255), f"data:image/png;base64,{picture(0)}"]}
    found = ask("/v1/classify", asked).json()
    assert [one["label"] for one in found["data"]] == ["bright", "dark"]
    first = {"index": 1, "label": "bright", "score": 1.0}
    assert found["data"][0]["classes"] == [first, {"index": 0, "label": "dark", "score": 0.0}]
    assert found["atoll"] == LOCAL
    inverted = ask("/v1/classify", {"model": "brightness", "input": picture(255), "invert": True, "top": 1}).json()
    assert inverted["data"] == [{"index": 0, "label": "dark", "classes": [{"index": 0, "label": "dark", "score": 1.0}]}]


@pytest.mark.parametrize(
    ("given", "param"), [("%%%", "input"), ([picture(0), base64.b64encode(b"no picture").decode()], "input[1]")]
)
def test_what_is_no_picture_is_400(given: Any, param: str) -> None:
    response = ask("/v1/classify", {"model": "brightness", "input": given})
    assert response.status_code == 400
    assert problem(response)["param"] == param


# -- refusals ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"n": 2}, "n", "one answer a request"),
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"temperature": "hot"}, "temperature", "float"),
        ({"tools": [{"type": "function"}]}, "tools[0]", "tools are not served"),
        ({"response_format": {"type": "json_object"}}, "response_format.type", "json_object"),
        ({"messages": []}, "messages", "length"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "tool"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing required field"),
        ({"hello": 1}, "hello", "unknown field"),
        ({"model": None}, "model", "str"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], param: str, words: str) -> None:
    response = ask(CHAT, {"model": "echo", "messages": HELLO} | fields)
    assert response.status_code == 400
    found = problem(response)
    assert found["param"] == param
    assert words in found["message"]
    assert found["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("/v1/embeddings", {"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ("/v1/embeddings", {"input": [[1, 2], [3]]}, "send the text"),
        ("/v1/embeddings", {"input": "x", "dimensions": 8}, "all dimensions"),
        ("/v1/embeddings", {"input": ""}, "not empty"),
        ("/v1/completions", {"prompt": [1, 2]}, "send the text"),
        ("/v1/completions", {"prompt": "x", "echo": True}, "echo"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "leave it out"),
        ("/v1/responses", {"input": "x", "previous_response_id": "resp-1"}, "whole conversation"),
        ("/v1/responses", {"input": "x", "background": True}, "background"),
    ],
)
def test_what_is_not_served_is_told(path: str, fields: dict[str, Any], words: str) -> None:
    response = ask(path, {"model": "echo"} | fields)
    assert response.status_code == 400
    assert words in problem(response)["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"nul", b'{"model": "\xff"}', b"[" * 100_000, b'{"model":' * 50_000, b'"\\ud800"']
)
def test_a_body_that_is_not_json_is_400(body: bytes) -> None:
    response = ask(CHAT, method="POST", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert problem(response)["code"] in ("invalid_json", "bad_field")


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_415(media: str) -> None:
    """A page of another site can send these without asking, and so use a server that needs no key."""
    response = ask(CHAT, method="POST", content=b"{}", headers={"content-type": media} if media else {})
    assert response.status_code == 415
    assert problem(response)["code"] == "unsupported_media_type"


def test_a_large_body_is_413() -> None:
    declared = ask(CHAT, {"model": "echo", "messages": [{"role": "user", "content": "x" * (4 << 20)}]})

    async def parts() -> Any:
        for _ in range(5):
            yield b"x" * (1 << 20)

    chunked = ask(CHAT, method="POST", content=parts(), headers={"content-type": "application/json"})
    for response in (declared, chunked):
        assert response.status_code == 413
        assert problem(response)["code"] == "too_large"


def test_another_method_is_405() -> None:
    response = ask(CHAT)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert problem(response)["code"] == "method_not_allowed"
    response = ask("/v1/models", {})
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


def test_another_path_is_404() -> None:
    assert problem(ask("/v1/images/generations", {}))["code"] == "not_found"
    assert problem(ask("/v1/%0A"))["code"] == "not_found"


def test_nobody_who_answers_for_the_money_is_402() -> None:
    response = ask(CHAT, {"model": "poor", "messages": HELLO})
    assert response.status_code == 402
    assert problem(response)["code"] == "insufficient_quota"


# -- keys --------------------------------------------------------------------------------------------------------------
def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


def test_without_keys_only_this_device_may_ask(tmp_path: Path) -> None:
    assert ask("/v1/models", home=tmp_path, client="::1").status_code == 200
    assert ask("/v1/models", home=tmp_path, headers=bearer("anything")).status_code == 200
    response = ask("/v1/models", home=tmp_path, client="192.168.1.7")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "atoll key api add" in problem(response)["message"]


def test_with_keys_everybody_needs_one(tmp_path: Path) -> None:
    text = keys.add_key(tmp_path, "laptop", None)
    refused: list[dict[str, Any]] = [
        {},
        bearer("atoll-wrong"),
        {"authorization": f"Basic {text}"},
        {"authorization": b"Bearer \xe9"},
    ]
    for headers in refused:
        response = ask("/v1/models", home=tmp_path, headers=headers)
        assert response.status_code == 401
        assert problem(response)["code"] == "invalid_api_key"
    assert ask("/v1/models", home=tmp_path, headers=bearer(text), client="192.168.1.7").status_code == 200
    assert ask("/health", home=tmp_path).status_code == 200


def test_a_damaged_file_of_keys_lets_nobody_in(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    response = ask("/v1/models", home=tmp_path)
    assert response.status_code == 500
    assert str(tmp_path) not in problem(response)["message"]  # the log tells the owner


def test_a_key_that_has_spent_its_limit_is_402(tmp_path: Path) -> None:
    text = keys.add_key(tmp_path, "laptop", PAID.cost + 1)
    asked = {"model": "paid", "messages": HELLO}
    assert ask(CHAT, asked, tmp_path, headers=bearer(text)).status_code == 200
    assert ask(CHAT, asked | {"stream": True}, tmp_path, headers=bearer(text)).status_code == 200  # crosses the limit
    response = ask(CHAT, asked, tmp_path, headers=bearer(text))
    assert response.status_code == 402
    assert problem(response)["type"] == "insufficient_quota"
    key = keys.read_keys(tmp_path)[0]
    assert keys.Keys(tmp_path).spent(key) == 2 * PAID.cost  # exactly


# -- health and counters -----------------------------------------------------------------------------------------------
def test_health() -> None:
    assert ask("/health").json() == {"status": "ok", "models": 6, "running": 0, "waiting": 0}


def test_counters_for_prometheus() -> None:
    async def requests() -> str:
        transport = httpx.ASGITransport(make_app(Echo(), Path("nowhere-at-all")))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await client.post(CHAT, json={"model": "paid", "messages": HELLO})
            await client.post(CHAT, json={"model": "nobody", "messages": HELLO})
            return (await client.get("/metrics")).text

    lines = asyncio.run(requests()).splitlines()
    for line in (
        'atoll_requests_total{endpoint="/v1/chat/completions",status="200"} 1',
        'atoll_errors_total{endpoint="/v1/chat/completions",code="model_not_found"} 1',
        'atoll_request_seconds_count{endpoint="/v1/chat/completions"} 2',
        'atoll_request_seconds_bucket{endpoint="/v1/chat/completions",le="+Inf"} 2',
        'atoll_model_tokens_total{model="paid",kind="answer"} 3',
        f"atoll_spent_base_units_total {PAID.cost}",
        "atoll_tabs 3",
    ):
        assert line in lines
