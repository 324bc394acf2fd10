"""The pages of what is stored and of what was trained: blobs, pieces, models. Pure.

What a function returns is the page's JSON twin, and all that its template knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.gateway.pages.facts import JobFacts, ModelFacts, Snapshot, hexed
from atoll.graph.manifest import Manifest
from atoll.storage.layout import UNHELD

Json = Any
SHOWN_BLOBS = 80


def blobs_page(facts: Snapshot, _: Mapping[str, str]) -> Json:
    """`/blobs`: this gateway's own blobs, the layouts that it keeps, and what all nodes store together."""
    held, layouts, uses = list(facts.held()), list(facts.layouts()), _uses(facts)
    rows = [
        {
            "blob": one.id.hex(),
            "bytes": one.size,
            "pinned": one.pinned,
            "what": uses.get(one.id.hex(), ("data", ""))[0],
            "link": uses.get(one.id.hex(), ("data", ""))[1],
        }
        for one in held
    ]
    rows.sort(key=lambda row: (row["what"] == "data", row["what"], row["blob"]))
    return {
        "own": {"blobs": len(held), "bytes": sum(one.size for one in held), "limit": facts.disk_limit},
        "network": {
            "nodes": len(facts.about),
            "blobs": sum(about.stored_blobs for about in facts.about.values()),
            "pieces": sum(about.stored_pieces for about in facts.about.values()),
            "room": sum(about.disk_mb << 20 for about in facts.about.values()),
        },
        "models": [
            {"blob": job.followed.model.hex(), "name": job.name}
            for job in facts.jobs.values()
            if job.followed and job.followed.model
        ],
        "layouts": [
            {
                "blob": layout.blob.hex(),
                "bytes": layout.size,
                "k": layout.k,
                "n": layout.n,
                "pieces": len(layout.pieces),
                "held": sum(holder != UNHELD for holder in layout.holders),
                "holders": [facts.named(a) for a in layout.holders if a != UNHELD],
            }
            for layout in layouts[:SHOWN_BLOBS]
        ],
        "holders": sorted(
            (
                {
                    **facts.named(account),
                    "blobs": about.stored_blobs,
                    "pieces": about.stored_pieces,
                    "room": about.disk_mb << 20,
                }
                for account, about in facts.about.items()
            ),
            key=lambda row: str(row["name"] or "~"),
        )[:SHOWN_BLOBS],
        "blobs": rows[:SHOWN_BLOBS],
    }


def _uses(facts: Snapshot) -> dict[str, tuple[str, str]]:
    """What known blobs are: id in hex -> (words, the page that tells more)."""
    uses: dict[str, tuple[str, str]] = {}
    for job in facts.jobs.values():
        uses.update(_uses_of_job(job))
    for posted in facts.view.epochs:
        number = posted.epoch.epoch
        uses[posted.epoch.uri] = (f"receipts of epoch {number}", f"/settlement/{number}")
    return uses


def _uses_of_job(job: JobFacts) -> dict[str, tuple[str, str]]:
    link, manifest = f"/jobs/{hexed(job.id)}", job.manifest
    uses = {job.on_chain.manifest.hex(): ("manifest of a job", link)}
    if manifest is not None:
        for name, words in (("step", "step graph"), ("evaluate", "evaluation graph"), ("predict", "answering graph"),
                            ("params", "first values"), ("initial", "first model")):  # fmt: skip
            uses[getattr(manifest, name)] = (f"{words} of {manifest.name}", link)
        uses[manifest.data.card] = (f"data card of {manifest.name}", link)
    for one in job.finished:
        uses[one.certificate.model.hex()] = (f"model after round {one.round}", f"{link}/rounds/{one.round}")
    if job.followed and job.followed.model:
        uses[job.followed.model.hex()] = ("trained model", f"/models/{job.followed.model.hex()}")
    return uses


def models_page(facts: Snapshot, _: Mapping[str, str]) -> Json:
    """`/models`: every trained model that the network stores, the best of each job."""
    rows = [
        _model_row(facts, job, job.manifest)
        for job in facts.jobs.values()
        if job.followed and job.followed.model and job.manifest
    ]
    return {"models": rows}


def _model_row(facts: Snapshot, job: JobFacts, manifest: Manifest) -> Json:
    return {
        "model": job.followed.model.hex() if job.followed else "",
        "name": manifest.name,
        "label": facts.label(job.id),
        "job": hexed(job.id),
        "parameters": manifest.vector_length,
        "rounds": max(len(job.finished), job.on_chain.certified),
        "workers": len(job.on_chain.roster),
        "scores": _final_scores(job),
        "data": job.card.name if job.card else "",
        "licence": job.card.licence if job.card else "",
    }


def _final_scores(job: JobFacts) -> dict[str, float]:
    """Scores after the last round; none while only earlier ones are known, which would pass for the model's own."""
    return dict(job.scores.get(max(len(job.finished), job.on_chain.certified) - 1, {}))


def model_page(facts: Snapshot, model: ModelFacts) -> Json:
    """`/models/{model}`: its card, its scores, who trained it, how to run it, and what the browser needs to try it."""
    manifest = model.manifest
    job = next((j for j in facts.jobs.values() if j.followed and j.followed.model == model.blob), None)
    names = list(job.card.schema.y.names) if job and job.card else []
    roster = job.on_chain.roster if job else ()
    return {
        "model": model.blob.hex(),
        "bytes": model.size,
        "card": dict(model.card),
        "name": manifest.name,
        "parameters": manifest.vector_length,
        "job": hexed(job.id) if job else "",
        "trained_by": [facts.named(account) for account in roster],
        "scores": _final_scores(job) if job else {},
        "data": {
            "name": job.card.name if job and job.card else "",
            "licence": job.card.licence if job and job.card else "",
            "origin": job.card.origin if job and job.card else "",
            "card": manifest.data.card,
        },
        "input": {"shape": list(manifest.input.shape), "dtype": manifest.input.dtype},
        "output": {"shape": list(manifest.output.shape), "meaning": manifest.output.meaning},
        "classes": names[:1000],
        "try": _trial(manifest),
        "run": f"atoll run {model.blob.hex()}",
    }


def _trial(manifest: Manifest) -> str:
    """What a visitor can hand in: "draw" for small grey pictures, "picture" for coloured ones, else nothing."""
    form = manifest.input
    if form.dtype != "uint8" or len(form.shape) != 3 or manifest.output.meaning != "probabilities":
        return ""
    return {1: "draw", 3: "picture"}.get(form.shape[0], "")
