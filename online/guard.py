"""The guard of the sequence encoder: has it become worse than it was?"""

from __future__ import annotations

from online.state import State


class Guard:
    """Watches how often the encoder alone has the target among the ten best of its list.

    Streams get harder and easier, so that is measured against how often the whole system has: an
    alarm is a fall to half of the usual ratio that chance does not explain.
    """

    FALL, SURPRISE = 0.5, 4.0  # share of what is usual, and by how many standard deviations

    def __init__(self, every: int) -> None:
        """every: events in a lesson. "Now" is about two lessons, "usual" ten times as long."""
        self._now, self._usual = 0.5 / every, 0.05 / every  # what each target makes forget
        # hits of the encoder and of the system
        self._encoder_now = self._system_now = self._encoder_usual = self._system_usual = 0.0
        self.targets = 0
        self.hits = 0

    def saw(self, encoder: bool, system: bool) -> None:
        """A target: was it among the ten best of the encoder, of the system?"""
        now, usual = self._now, self._usual
        self._encoder_now += encoder - now * self._encoder_now
        self._system_now += system - now * self._system_now
        self._encoder_usual += encoder - usual * self._encoder_usual
        self._system_usual += system - usual * self._system_usual
        self.targets += 1
        self.hits += encoder

    def state(self) -> State:
        return dict(vars(self))

    def restore(self, state: State) -> None:
        vars(self).update(state)

    def alarmed(self) -> bool:
        if self._system_usual == 0.0:
            return False
        expected = self._system_now * self._encoder_usual / self._system_usual
        fall = expected - self._encoder_now
        return fall > (1.0 - self.FALL) * expected and fall > self.SURPRISE * expected**0.5

    def reset(self) -> None:
        """The weights are others now: watch on as if all were as usual."""
        share = self._usual / self._now
        self._encoder_now = share * self._encoder_usual
        self._system_now = share * self._system_usual
