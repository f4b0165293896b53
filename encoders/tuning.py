"""Teaching the language model a shop's own likeness: low-rank adapters, contrastive learning.

Texts that go together shall be nearer than others: InfoNCE (van den Oord et al. 2018) over
the other pairs of the mini-batch and over items drawn at random, by popularity, and from the same
category. Only the adapter learns (Hu et al. 2022, "LoRA"), and it is drawn towards changing no
vector: a few hundred pairs must not undo what millions of sentences taught. For the same reason
parts of what was learned are tried (weights between the untaught and the taught ones keep most of
what both know: Wortsman et al. 2022). The weights that serve the pairs of the validation part best
are kept; the untaught model takes part in that choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from encoders.devices import Device
from encoders.text_config import TextConfig
from encoders.text_models import loaded, place_of, pooled
from encoders.text_ranks import place_among, ranks
from encoders.wording import plain

Say = Callable[[int, int, str], None]  # steps done, of how many, what to note
READ_AT_ONCE = 64
SELDOM = 1e-6  # an answer that is never drawn
PARTS = (0.5, 0.25, 0.1, 0.05)  # of what was learned last that are tried as well


@dataclass(frozen=True)
class TuningConfig:
    rank: int = 8  # of the products that are learned
    scale: int = 16  # an adapter is multiplied by scale / rank
    dropout: float = 0.1
    rate: float = 3e-4
    decay: float = 0.01  # of weights, at each step, times the rate
    warm: float = 0.1  # of the steps in which the rate rises
    temperature: float = 0.05
    near: float = 0.2  # weight of 1 - cosine to the untaught vector
    pairs: int = 64  # of a mini-batch
    negatives: int = 16  # of each of the three kinds
    epochs: int = 12
    steps: int = 400  # at most
    validations: int = 12
    patience: int = 8  # validations without a better one before it ends
    among: int = 1_000  # items that validation ranks
    seed: int = 0


class Pairs(NamedTuple):
    """N texts and the items that go with them, as numbers of texts."""

    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Shop:
    """T texts, of I items first and then of queries; what is known of the items (I,)."""

    texts: list[str]
    popularity: np.ndarray  # events before the held-out part
    category: np.ndarray  # numbers from 0; -1: none

    @property
    def items(self) -> int:
        return len(self.popularity)


class Tuned(NamedTuple):
    """What was learned."""

    model: Any  # peft.PeftModel
    best_step: int  # 0: nothing served better than the untaught model
    steps: int
    share: float  # of what was learned that counts
    curve: list[dict[str, float]]  # by validation: step, loss, rank


def tune(
    base: TextConfig, shop: Shop, learned: Pairs, validation: Pairs, config: TuningConfig, say: Say
) -> Tuned:
    """Learn from pairs until the steps are over or validation no longer gets better; keep the best.

    The same arguments give the same adapter on the same machine. Raises TextModelError.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return _Tuning(base, shop, learned, config).run(validation, say)


class _Tuning:
    def __init__(self, base: TextConfig, shop: Shop, learned: Pairs, config: TuningConfig) -> None:
        from peft import LoraConfig, get_peft_model

        self._shop, self._learned, self._config = shop, learned, config
        self._device = Device.named(base.device)
        self._rng = np.random.default_rng(config.seed)
        self._tokenizer, model = loaded(place_of(base.model), base)
        self._words = _words(self._tokenizer, shop.texts, base.tokens)
        form = LoraConfig(
            r=config.rank, lora_alpha=config.scale, lora_dropout=config.dropout,
            target_modules="all-linear", exclude_modules=r".*pooler.*",
        )  # fmt: skip
        self._model = get_peft_model(model, form).to(self._device.torch)
        moved = {n: w for n, w in self._model.named_parameters() if w.requires_grad}
        self._names, self._weights = list(moved), list(moved.values())
        self._negatives = Negatives(shop, config.negatives, self._rng)
        self._together = _together(learned, len(shop.texts))
        self._size = min(config.pairs, max(len(learned.left) // 8, 2))
        self._drawn = self._log_drawn(learned.right), self._log_drawn(learned.left)
        self._untaught: dict[int, Tensor] = {}

    def run(self, validation: Pairs, say: Say) -> Tuned:
        config, count = self._config, len(self._learned.left)
        steps = min(-(-count // self._size) * config.epochs, config.steps)
        every = max(steps // config.validations, 1)
        among = self._among(validation)
        optimizer = torch.optim.AdamW(self._weights, config.rate, weight_decay=config.decay)
        slow = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: _rate(n, steps, config.warm))
        best, best_step, since, losses = self._state(), 0, 0, []
        score = top = self._score(validation, among)
        curve = [{"step": 0, "rank": score}]
        for step, rows in enumerate(self._batches(self._size, steps), 1):
            loss = self._loss(rows)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self._weights, 1.0)
            optimizer.step()
            slow.step()
            losses.append(float(loss.detach()))
            if step % every == 0 or step == steps:
                score = self._score(validation, among)
                curve.append({"step": step, "loss": float(np.mean(losses)), "rank": score})
                losses, since = [], since + 1
                if score < top:
                    best, best_step, top, since = self._state(), step, score, 0
            say(step, steps, f"typical rank {score:.1f}, {curve[0]['rank']:.1f} untaught")
            if since >= config.patience:
                break
        last, last_step, share = self._state(), int(curve[-1]["step"]), 1.0
        for part in PARTS:
            self._load(last, part)
            if (score := self._score(validation, among)) < top:
                best, best_step, top, share = self._state(), last_step, score, part
            curve.append({"step": last_step, "share": part, "rank": score})
        self._load(best)
        return Tuned(self._model.eval(), best_step, last_step, share, curve)

    def _log_drawn(self, answers: np.ndarray) -> Tensor:
        """Logarithms (T,) of how often each text is among a mini-batch's answers, on average;
        answers: one of each pair."""
        drawn = self._size / len(answers) * np.bincount(answers, minlength=len(self._shop.texts))
        drawn[: self._shop.items] += self._negatives.expected(self._learned.right)
        logs = torch.from_numpy(np.log(np.maximum(drawn, SELDOM)).astype(np.float32))
        return logs.to(self._device.torch)

    def _batches(self, size: int, steps: int) -> list[np.ndarray]:
        """Places of pairs in random order, each once in an epoch."""
        count = len(self._learned.left)
        found: list[np.ndarray] = []
        while len(found) < steps:
            order = self._rng.permutation(count)
            found += [order[at : at + size] for at in range(0, count, size) if at + 2 <= count]
        return found[:steps]

    def _loss(self, rows: np.ndarray) -> Tensor:
        """InfoNCE of pairs in both directions, and how far vectors went."""
        left, right = self._learned.left[rows], self._learned.right[rows]
        others = np.concatenate([right, self._negatives.draw(right)])
        texts, at = np.unique(np.concatenate([left, others]), return_inverse=True)
        self._model.train()
        vectors = self._vectors(texts)
        a, b = vectors[at[: len(left)]], vectors[at[len(left) :]]
        loss = self._contrast(a, b, left, others, self._drawn[0])
        backward = left < self._shop.items  # no item's answer is a query
        if backward.any():
            pool = np.concatenate([left, others[len(left) :]])
            there = torch.cat([a, b[len(left) :]])
            picked = np.flatnonzero(backward)
            items = np.flatnonzero(pool < self._shop.items)
            again = self._contrast(
                b[picked], there[items], right[picked], pool[items], self._drawn[1]
            )
            loss = (loss + again) / 2
        return loss + self._config.near * (1 - (vectors * self._before(texts)).sum(1)).mean()

    def _contrast(
        self, a: Tensor, b: Tensor, left: np.ndarray, others: np.ndarray, drawn: Tensor
    ) -> Tensor:
        """Of vectors (B, D) among (C, D), the first B of which are theirs.

        What is taken often is drawn often as a wrong answer. Uncorrected, the model would learn to
        look away from it (Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling for Large Corpus
        Item Recommendations"): each score gives up the logarithm of how often it is drawn.
        """
        scores = a @ b.T / self._config.temperature - drawn[torch.from_numpy(others)]
        keys = left[:, None] * len(self._shop.texts) + others[None, :]
        wrong = np.isin(keys, self._together) | (left[:, None] == others[None, :])
        wrong[np.arange(len(left)), np.arange(len(left))] = False
        scores = scores.masked_fill(torch.from_numpy(wrong).to(scores.device), -torch.inf)
        return nn.functional.cross_entropy(scores, torch.arange(len(a), device=scores.device))

    def _vectors(self, texts: np.ndarray) -> Tensor:
        batch = self._tokenizer.pad(
            {"input_ids": [self._words[n] for n in texts.tolist()]}, return_tensors="pt"
        ).to(self._device.torch)
        return pooled(self._model(**batch).last_hidden_state.float(), batch["attention_mask"])

    @torch.no_grad()
    def _read(self, texts: np.ndarray) -> Tensor:
        self._model.eval()
        order = np.argsort([len(self._words[n]) for n in texts.tolist()], kind="stable")
        parts = [
            self._vectors(texts[order[at : at + READ_AT_ONCE]])
            for at in range(0, len(order), READ_AT_ONCE)
        ]
        return torch.cat(parts)[torch.from_numpy(np.argsort(order)).to(self._device.torch)]

    def _before(self, texts: np.ndarray) -> Tensor:
        """What the untaught model makes of them; read once."""
        new = np.array([n for n in texts.tolist() if n not in self._untaught], np.int64)
        if len(new):
            with self._model.disable_adapter():
                self._untaught |= dict(zip(new.tolist(), self._read(new), strict=True))
        return torch.stack([self._untaught[n] for n in texts.tolist()])

    def _among(self, pairs: Pairs) -> np.ndarray:
        """Items among which validation ranks: the pairs' own and others."""
        own = np.unique(pairs.right)
        rest = np.setdiff1d(np.arange(self._shop.items), own)
        rest = rest[[bool(self._words[n]) for n in rest.tolist()]] if len(rest) else rest
        more = max(min(self._config.among - len(own), len(rest)), 0)
        return np.sort(np.concatenate([own, self._rng.choice(rest, more, replace=False)]))

    def _score(self, pairs: Pairs, among: np.ndarray) -> float:
        """The geometric mean of ranks: unlike reciprocal ranks it does not hang on a few first
        places, which a few hundred pairs do not tell from chance."""
        left, at = np.unique(pairs.left, return_inverse=True)
        a, b = self._read(left), self._read(among)
        found = ranks(
            a[torch.from_numpy(at).to(a.device)].cpu().numpy(), b.cpu().numpy(),
            np.searchsorted(among, pairs.right), place_among(among, pairs.left),
        )  # fmt: skip
        return float(np.exp(np.log(found).mean()))

    def _state(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self._weights]

    def _load(self, state: list[Tensor], part: float = 1.0) -> None:
        """part: of what these weights add to the model's: B of each product B·A is multiplied."""
        for name, weight, kept in zip(self._names, self._weights, state, strict=True):
            weight.data.copy_(kept * part if "lora_B" in name else kept)


class Negatives:
    """Items that probably do not go with those of a mini-batch."""

    def __init__(self, shop: Shop, count: int, rng: np.random.Generator) -> None:
        self._count, self._rng = count, rng
        said = np.array([bool(plain(text)) for text in shop.texts[: shop.items]])
        self._items = np.flatnonzero(said)
        weight = shop.popularity[self._items] ** 0.75  # Mikolov et al. 2013
        self._popular = weight / weight.sum() if weight.sum() else None
        self._category = np.where(said, shop.category, -1)
        self._order = np.argsort(self._category, kind="stable")
        self._sorted = self._category[self._order]

    def expected(self, items: np.ndarray) -> np.ndarray:
        """How often each item is drawn at a time (I,), when draws are for some of `items`."""
        found = np.zeros(len(self._category))
        n, even = min(self._count, len(self._items)), 1 / max(len(self._items), 1)
        found[self._items] += n * (even + (even if self._popular is None else self._popular))
        ranged, wanted = self._category >= 0, self._category[items]
        if ranged.any():
            sizes = np.bincount(self._category[ranged])
            asked = np.bincount(wanted[wanted >= 0], minlength=len(sizes)) / len(items)
            found[ranged] += n * (asked / np.maximum(sizes, 1))[self._category[ranged]]
        return found

    def draw(self, items: np.ndarray) -> np.ndarray:
        """At random, by popularity, and of the same category as one of `items`."""
        n, rng = min(self._count, len(self._items)), self._rng
        drawn = [rng.choice(self._items, n), rng.choice(self._items, n, p=self._popular)]
        wanted = self._category[rng.choice(items, n)]
        wanted = wanted[wanted >= 0]
        first, last = (np.searchsorted(self._sorted, wanted, side) for side in ("left", "right"))
        drawn.append(self._order[rng.integers(first, last)] if len(wanted) else wanted)
        return np.concatenate(drawn)


def _words(tokenizer: Any, texts: list[str], longest: int) -> list[list[int]]:
    """The model's words of each text."""
    if not texts:
        return []
    clean = [plain(text) for text in texts]
    made = tokenizer(clean, truncation=True, max_length=longest)["input_ids"]
    return [words if text else [] for words, text in zip(made, clean, strict=True)]


def _together(pairs: Pairs, count: int) -> np.ndarray:
    """Numbers of the pairs, either way: these are no wrong answers."""
    return np.unique(np.concatenate([pairs.left * count + pairs.right,
                                     pairs.right * count + pairs.left]))  # fmt: skip


def _rate(step: int, steps: int, warm: float) -> float:
    """Of the learning rate: rises, then falls to 0, both evenly."""
    rising = max(int(steps * warm), 1)
    return min((step + 1) / rising, max(steps - step, 0) / max(steps - rising, 1))
