"""``eval retrieval`` on a small corpus, with the real embedder."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import numpy as np
import pytest
from collegium_cli.arguments import parser
from collegium_cli.eval.reading import EvaluationError
from collegium_cli.eval.retrieval import Corpus, Question, embedded, questions_of
from collegium_context.embedding.bundled import MiniLm

DOCUMENTS = {
    "bread": "Yeast makes dough rise before it is baked.",
    "rotor": "Helicopters hover by turning a rotor.",
    "tides": "The moon pulls the water of the seas twice a day.",
    "ledger": "Double entry books each amount on two accounts.",
}
QUESTIONS = {"why does dough rise": "bread", "the moon and the sea": "tides", "aircraft standing still in air": "rotor"}


def write(path: Path, rows: list[object]) -> Path:
    content = b"\n".join(msgspec.json.encode(row) for row in rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_figures_have_the_names_and_intervals_of_the_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write(tmp_path / "c.jsonl.gz", [{"id": k, "title": "", "text": v} for k, v in DOCUMENTS.items()])
    data = write(
        tmp_path / "q.jsonl", [{"id": k, "text": k, "qrels": {v: 2, "ledger": -1}} for k, v in QUESTIONS.items()]
    )
    options = parser().parse_args(["eval", "retrieval", "--corpus", str(corpus), "--data", str(data)])
    assert options.run(options) == 0
    figures = msgspec.json.decode(capsys.readouterr().out)
    assert set(figures) >= {"ndcg10", "recall100", "query_ms_p50", "index_s"}
    for name in ("ndcg10", "recall100"):
        assert set(figures[name]) == {"bm25", "dense", "hybrid"}
        assert all(one["low"] <= one["value"] <= one["high"] for one in figures[name].values())
    assert figures["ndcg10"]["dense"]["value"] == 1.0
    assert figures["ndcg10"]["hybrid"]["value"] == 1.0


def test_vectors_are_compared_by_direction() -> None:
    vectors = embedded(MiniLm(), list(DOCUMENTS.values()))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    corpus = Corpus(list(DOCUMENTS), list(DOCUMENTS.values()), vectors)
    assert [one.id for one in corpus.by_words("moon")] == ["tides"]
    assert corpus.by_vector(vectors[1])[0].id == "rotor"


def test_questions_without_relevant_documents_are_left_out_and_bad_rows_refused(tmp_path: Path) -> None:
    rows = [{"text": "a", "qrels": {"x": 1}}, {"text": "b", "qrels": {"x": 0}}]
    assert questions_of(write(tmp_path / "q.jsonl", rows)) == [Question("a", frozenset({"x"}))]
    with pytest.raises(EvaluationError, match="no question"):
        questions_of(write(tmp_path / "bad.jsonl", [{"text": "a"}]))
