"""POST /v1/chat/completions and POST /v1/completions: whole, or as a stream of chunks that ends in [DONE]."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from atoll.gateway.openai import shapes
from atoll.gateway.openai.faults import ApiError, ProblemBody
from atoll.gateway.openai.questions import Chat, Completion
from atoll.gateway.openai.service import Asked, Call, Flow, Reply, event, reply, together
from atoll.inference.answers import Served

DONE = b"data: [DONE]\n\n"


def failed(fault: ApiError) -> bytes:
    """The event that tells of an error amid a stream."""
    return event(ProblemBody(fault.problem))


async def chat(call: Call, question: Chat) -> Reply | Flow:
    """The next turn of a conversation."""
    asked = _chat_of(call, question)
    if question.stream:
        return Flow(_chat_chunks(call, question, asked), failed)
    text, last, entries = await asked.whole()
    told = shapes.chat_logprobs(entries, question.top_logprobs or 0) if question.wants_logprobs else None
    choice = shapes.ChatChoice(0, shapes.Said("assistant", text), told, shapes.finish_of(last))
    answer = shapes.ChatAnswer(
        call.fresh("chatcmpl"),
        "chat.completion",
        call.created,
        question.model,
        [choice],
        shapes.usage(asked.prompt_tokens, asked.tokens),
        shapes.atoll(asked.served),
    )
    return reply(answer, asked.served)


def _chat_of(call: Call, question: Chat) -> Asked:
    messages = [turn.message() for turn in question.messages]
    return Asked(call, question.model, call.service.answers.chat(question.model, messages, question.sampling()))


async def _chat_chunks(call: Call, question: Chat, asked: Asked) -> AsyncGenerator[bytes]:
    name, created, top = call.fresh("chatcmpl"), call.created, question.top_logprobs or 0

    def chunk(*choices: shapes.DeltaChoice, **more: object) -> bytes:
        made = shapes.ChatChunk(name, "chat.completion.chunk", created, question.model, list(choices), **more)  # type: ignore[arg-type]
        return event(made)

    last = None
    async with asked:
        async for piece in asked:
            if last is None:
                yield chunk(shapes.DeltaChoice(0, shapes.Delta("assistant", "")))
            last = piece
            told = shapes.chat_logprobs(piece.logprobs or (), top) if question.wants_logprobs else None
            if piece.text or (told and told.content):
                yield chunk(shapes.DeltaChoice(0, shapes.Delta(content=piece.text), told))
    atoll = shapes.atoll(asked.served)
    yield chunk(shapes.DeltaChoice(0, shapes.Delta(), finish_reason=shapes.finish_of(last)), atoll=atoll)
    if question.include_usage:
        yield chunk(usage=shapes.usage(asked.prompt_tokens, asked.tokens), atoll=atoll)
    yield DONE


async def completions(call: Call, question: Completion) -> Reply | Flow:
    """What comes after a text, or after each of a few."""
    if question.stream:
        return Flow(_text_chunks(call, question), failed)
    choices, parts = [], []
    prompt = answer = 0
    for index, text in enumerate(question.prompts):
        asked = _completion_of(call, question, text)
        said, last, entries = await asked.whole()
        told = None if question.logprobs is None else shapes.text_logprobs(entries, question.logprobs, 0)
        choices.append(shapes.TextChoice(index, said, told, shapes.finish_of(last)))
        prompt, answer = prompt + asked.prompt_tokens, answer + asked.tokens
        parts.append(asked.served)
    served = together(parts)
    made = shapes.TextAnswer(
        call.fresh("cmpl"),
        "text_completion",
        call.created,
        question.model,
        choices,
        shapes.usage(prompt, answer),
        shapes.atoll(served),
    )
    return reply(made, served)


def _completion_of(call: Call, question: Completion, prompt: str) -> Asked:
    return Asked(call, question.model, call.service.answers.complete(question.model, prompt, question.sampling()))


async def _text_chunks(call: Call, question: Completion) -> AsyncGenerator[bytes]:
    name, created, parts = call.fresh("cmpl"), call.created, list[Served]()
    prompt = answer = 0

    def chunk(*choices: shapes.TextChoice, **more: object) -> bytes:
        made = shapes.TextAnswer(name, "text_completion", created, question.model, list(choices), **more)  # type: ignore[arg-type]
        return event(made)

    for index, text in enumerate(question.prompts):
        last, offset = None, 0
        asked = _completion_of(call, question, text)
        async with asked:
            async for last in asked:
                told = None
                if question.logprobs is not None and last.logprobs:
                    told = shapes.text_logprobs(last.logprobs, question.logprobs, offset)
                offset += len(last.text)
                yield chunk(shapes.TextChoice(index, last.text, told))
        prompt, answer = prompt + asked.prompt_tokens, answer + asked.tokens
        parts.append(asked.served)
        end = index + 1 == len(question.prompts)
        atoll = shapes.atoll(together(parts)) if end else None
        yield chunk(shapes.TextChoice(index, "", finish_reason=shapes.finish_of(last)), atoll=atoll)
    if question.include_usage:
        yield chunk(usage=shapes.usage(prompt, answer), atoll=shapes.atoll(together(parts)))
    yield DONE
