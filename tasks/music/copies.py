"""Search for frame sequences that were copied from the training music, in linear time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

NOWHERE = -1
NO_PIECE = 2**62  # above the number of any piece


class CopyIndex:
    """An index of all frame sequences of some pieces: a suffix automaton.

    Each state stands for the sequences that end at the same places. Of these places it knows
    whether they are all in one piece, so that a piece can be compared with the others.

    Args:
      pieces: arrays `<float>[time, 88]`; a key sounds where a value exceeds 0.5.

    Reference:
      - Blumer et al., 1985: The smallest automaton recognizing the subwords of a text
        (https://doi.org/10.1016/0304-3975(85)90157-4)
    """

    def __init__(self, pieces: Sequence[np.ndarray]):
        self.numbers: dict[bytes, int] = {}  # of distinct frames
        self.following: list[dict[int, int]] = [{}]
        self.link = [NOWHERE]
        self.length = [0]
        # The lowest and the highest number of a piece in which the sequences of a state occur.
        self.lowest, self.highest = [NO_PIECE], [NOWHERE]
        for number, piece in enumerate(pieces):
            last = 0  # no sequence goes beyond the start of a piece
            for row in _rows(piece):
                last = self._extend(last, self.numbers.setdefault(row, len(self.numbers)), number)
        # A sequence also occurs where a longer one does that ends with it.
        for state in sorted(range(1, len(self.link)), key=self.length.__getitem__, reverse=True):
            shorter = self.link[state]
            self.lowest[shorter] = min(self.lowest[shorter], self.lowest[state])
            self.highest[shorter] = max(self.highest[shorter], self.highest[state])

    def _add(self, length: int, following: dict[int, int], link: int, piece: int | None) -> int:
        self.following.append(following)
        self.length.append(length)
        self.link.append(link)
        self.lowest.append(NO_PIECE if piece is None else piece)
        self.highest.append(NOWHERE if piece is None else piece)
        return len(self.link) - 1

    def _extend(self, last: int, frame: int, piece: int) -> int:
        """Append a frame to the sequences that end in state `last`; return the new state."""
        known = self.following[last].get(frame)
        if known is not None:
            if self.length[known] == self.length[last] + 1:
                state = known
            else:
                state = self._clone(last, frame, known)
            self.lowest[state] = min(self.lowest[state], piece)
            self.highest[state] = max(self.highest[state], piece)
            return state
        new = self._add(self.length[last] + 1, {}, 0, piece)
        state = last
        while state != NOWHERE and frame not in self.following[state]:
            self.following[state][frame] = new
            state = self.link[state]
        if state != NOWHERE:
            target = self.following[state][frame]
            if self.length[target] != self.length[state] + 1:
                target = self._clone(state, frame, target)
            self.link[new] = target
        return new

    def _clone(self, state: int, frame: int, target: int) -> int:
        """Split the shorter sequences off a state that `state` and `frame` lead to."""
        clone = self._add(
            self.length[state] + 1, dict(self.following[target]), self.link[target], None
        )
        self.link[target] = clone
        while state != NOWHERE and self.following[state].get(frame) == target:
            self.following[state][frame] = clone
            state = self.link[state]
        return clone

    def runs(self, piece: np.ndarray, *, but: int | None = None) -> np.ndarray:
        """Return how long the sequences are that end with each frame and occur in the index.

        Args:
          piece: `<float>[time, 88]`.
          but: number of a piece of the index that does not count.

        Returns:
          `<int>[time]`.
        """
        longest = np.zeros(len(piece), np.int64)
        state, length = 0, 0
        for step, row in enumerate(_rows(piece)):
            frame = self.numbers.get(row, NOWHERE)
            target = self._step(state, frame, but)
            while target is None and state:
                state = self.link[state]
                length = self.length[state]
                target = self._step(state, frame, but)
            state, length = (0, 0) if target is None else (target, length + 1)
            longest[step] = length
        return longest

    def _step(self, state: int, frame: int, but: int | None) -> int | None:
        target = self.following[state].get(frame)
        if target is None or self.lowest[target] == self.highest[target] == but:
            return None
        return target


def _rows(piece: np.ndarray) -> Iterable[bytes]:
    """Yield the frames of a piece as hashable values."""
    packed = np.packbits(piece > 0.5, axis=1)
    return (row.tobytes() for row in packed)


def copied_runs(
    pieces: Sequence[np.ndarray], training: Sequence[np.ndarray], transpose: int = 0
) -> list[np.ndarray]:
    """Find frame sequences that also occur in the training music.

    A piece that is itself an element of `training` is compared with the other elements.

    Args:
      pieces: arrays `<float>[time, 88]`.
      training: arrays of the same form.
      transpose: largest transposition of a copy, up or down, in semitones.

    Returns:
      For each piece `<int>[time]`: the length of the longest sequence that ends with this frame and
      occurs in a training piece.

    Example:
      >>> frames = np.eye(88)
      >>> copied_runs([frames[[5, 1, 2, 7]]], [frames[[1, 2, 3]], frames[[7, 7]]])
      [array([0, 1, 2, 1])]
    """
    index = CopyIndex(training)
    numbers = {id(piece): number for number, piece in enumerate(training)}
    longest = []
    for piece in pieces:
        own = numbers.get(id(piece))
        shifted = (np.roll(piece, shift, axis=1) for shift in range(-transpose, transpose + 1))
        longest.append(np.max([index.runs(roll, but=own) for roll in shifted], axis=0))
    return longest
