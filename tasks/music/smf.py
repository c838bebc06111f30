"""Standard MIDI Files, read as far as they can be.

Files from practice are often damaged or odd: bytes are missing at the end, lengths and counts are
wrong, data bytes exceed 127, other chunks stand between the tracks, or a RIFF file is wrapped
around the whole. All that can be understood is read; the rest is counted in `Song.dropped`.

Reference:
  - MIDI Manufacturers Association, 1996: Standard MIDI Files 1.0 (RP-001)
"""

from __future__ import annotations

import collections
import dataclasses
import struct
from collections.abc import Iterator
from typing import NamedTuple

from common.errors import InputError

DRUMS = 9  # the channel of drums
LATE_END = 4  # quarter notes after which a note without an end is ended

# Kinds of meta events.
END_OF_TRACK, TEMPO, METER = 0x2F, 0x51, 0x58
# Numbers of data bytes: of channel messages by their upper four bits, of system messages.
CHANNEL_DATA = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
SYSTEM_DATA = {0xF1: 1, 0xF2: 2, 0xF3: 1}


class Note(NamedTuple):
    """A note; times are in ticks."""

    pitch: int
    start: int
    end: int
    velocity: int


class Meter(NamedTuple):
    """A time signature that begins at a tick, which is a bar line."""

    tick: int
    beats: int
    unit: int  # 4 for quarter notes, 8 for eighth notes


@dataclasses.dataclass
class Song:
    """The contents of a file."""

    resolution: int
    """ticks per quarter note"""
    notes: list[Note] = dataclasses.field(default_factory=list)
    """all notes but those of drums"""
    drums: int = 0
    """number of notes of drums"""
    tempos: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    """tick and quarter notes per minute"""
    meters: list[Meter] = dataclasses.field(default_factory=list)
    dropped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """what could not be understood, and how often"""


def parse(content: bytes) -> Song:
    """Read the content of a file.

    Raises:
      InputError: there is no header, or time is not measured in quarter notes.
    """
    start = content.find(b"MThd")
    if start < 0:
        raise InputError("not a MIDI file: it has no MThd")
    if len(content) < start + 14:
        raise InputError("corrupt MIDI file: the header is cut off")
    size, _, tracks, resolution = struct.unpack(">IHHH", content[start + 4 : start + 14])
    if resolution >= 2**15:
        raise InputError(
            "time in SMPTE frames is not supported; save it with ticks per quarter note"
        )
    if resolution == 0:
        raise InputError("corrupt MIDI file: 0 ticks per quarter note")
    song = Song(resolution)
    read = 0
    for first, end in _tracks(content, start + 8 + max(size, 6), song):
        read += 1
        _Track(content, first, end, song).read()
    if read != tracks:
        song.dropped["wrong number of tracks in the header"] += 1
    song.notes.sort(key=lambda note: (note.start, note.pitch))
    song.tempos.sort()
    song.meters.sort()
    return song


def _tracks(content: bytes, place: int, song: Song) -> Iterator[tuple[int, int]]:
    """Yield where the events of each track begin and end."""
    while place < len(content):
        kind = content[place : place + 4]
        size = int.from_bytes(content[place + 4 : place + 8])
        start = place + 8
        end = start + size
        if kind == b"MTrk":
            if end > len(content) or not _is_chunk(content, end):
                following = content.find(b"MTrk", start)
                end = len(content) if following < 0 else following
                song.dropped["wrong length of a track"] += 1
            yield start, end
        elif _is_chunk(content, place) and _is_chunk(content, end):
            song.dropped["chunks that are no tracks"] += 1
        else:
            following = content.find(b"MTrk", place)
            end = len(content) if following < 0 else following
            if content[place:end].strip(b"\0"):
                song.dropped["bytes between tracks"] += end - place
        place = end


def _is_chunk(content: bytes, place: int) -> bool:
    """Return whether a chunk may begin at a place: the end, or a name of four letters."""
    kind = content[place : place + 4]
    return place == len(content) or (len(kind) == 4 and all(32 <= byte < 127 for byte in kind))


class _CutOffError(Exception):
    """The bytes of a track end within an event."""


class _Track:
    """Reads the events of one track.

    Args:
      content: the file.
      place: where the events begin.
      end: where they end.
      song: receives the notes, tempos and meters.
    """

    def __init__(self, content: bytes, place: int, end: int, song: Song):
        self.content, self.place, self.end, self.song = content, place, end, song
        self.tick = 0
        self.sounding: dict[tuple[int, int], tuple[int, int]] = {}  # channel, pitch: tick, velocity

    def read(self) -> None:
        """Read all events; end the notes that still sound."""
        status = 0
        try:
            while self.place < self.end:
                self.tick += self._number()
                byte = self._byte()
                if byte == 0xFF:
                    if self._meta():
                        break
                elif byte in (0xF0, 0xF7):
                    self._bytes(self._number())
                elif byte > 0xF0:
                    self._bytes(SYSTEM_DATA.get(byte, 0))
                    self.song.dropped["system messages"] += 1
                elif byte >= 0x80:
                    status = byte
                    self._message(status, self._bytes(CHANNEL_DATA[status >> 4]))
                elif status:  # the status of the message before holds
                    count = CHANNEL_DATA[status >> 4]
                    self._message(status, bytes([byte]) + self._bytes(count - 1))
                else:
                    self.song.dropped["bytes that belong to no event"] += 1
        except _CutOffError:
            self.song.dropped["events that are cut off"] += 1
        if self.sounding:
            self.song.dropped["notes without an end"] += len(self.sounding)
        longest = LATE_END * self.song.resolution
        for (channel, pitch), (start, _) in list(self.sounding.items()):
            self._stop(channel, pitch, min(max(self.tick, start + 1), start + longest))

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        if self.place + count > self.end:
            self.place = self.end
            raise _CutOffError
        self.place += count
        return self.content[self.place - count : self.place]

    def _number(self) -> int:
        """Read a number of variable length: seven bits a byte, the last one below 128."""
        value = 0
        for _ in range(4):
            byte = self._byte()
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        self.song.dropped["numbers of more than four bytes"] += 1
        return value

    def _meta(self) -> bool:
        """Read a meta event; return whether it ends the track."""
        kind, song = self._byte(), self.song
        data = self._bytes(self._number())
        if kind == END_OF_TRACK:
            return True
        if kind == TEMPO:
            microseconds = int.from_bytes(data)
            if len(data) == 3 and microseconds:
                song.tempos.append((self.tick, 6e7 / microseconds))
            else:
                song.dropped["odd meta events"] += 1
        elif kind == METER:
            if len(data) >= 2 and data[0] and data[1] <= 6:
                song.meters.append(Meter(self.tick, data[0], 2 ** data[1]))
            else:
                song.dropped["odd meta events"] += 1
        elif kind >= 0x80:
            song.dropped["odd meta events"] += 1
        return False

    def _message(self, status: int, data: bytes) -> None:
        """Handle a channel message: the start or the end of a note; others have no notes."""
        kind, channel = status >> 4, status & 0xF
        if max(data) > 127:
            self.song.dropped["data bytes over 127"] += 1
        if kind not in (0x8, 0x9) or data[0] > 127:
            return
        pitch, velocity = data[0], min(data[1], 127)
        if kind == 0x8 or velocity == 0:
            self._stop(channel, pitch, self.tick)
            return
        start, _ = self.sounding.get((channel, pitch), (None, 0))
        if start != self.tick:  # else it is struck twice at once
            self._stop(channel, pitch, self.tick)  # a key that is struck again
            self.sounding[channel, pitch] = self.tick, velocity

    def _stop(self, channel: int, pitch: int, tick: int) -> None:
        """End a note, if it sounds."""
        if (channel, pitch) not in self.sounding:
            return
        start, velocity = self.sounding.pop((channel, pitch))
        if channel == DRUMS:
            self.song.drums += 1
        else:
            self.song.notes.append(Note(pitch, start, tick, velocity))


# --- writing --------------------------------------------------------------------------------------


def encode(song: Song) -> bytes:
    """Encode notes, tempos and meters as a file with one track, played by a piano.

    Example:
      >>> song = Song(480, [Note(60, 0, 480, 80)], tempos=[(0, 100.0)], meters=[Meter(0, 3, 4)])
      >>> again = parse(encode(song))
      >>> again.notes == song.notes, again.tempos[0][1], again.meters == song.meters
      (True, 100.0, True)
    """
    events: list[tuple[int, int, bytes]] = [(0, 0, b"\xc0\0")]
    for tick, tempo in song.tempos:
        microseconds = min(max(round(6e7 / tempo), 1), 2**24 - 1)
        events.append((tick, 0, b"\xff\x51\x03" + microseconds.to_bytes(3)))
    for tick, beats, unit in song.meters:
        data = bytes([beats, unit.bit_length() - 1, 24, 8])
        events.append((tick, 0, b"\xff\x58\x04" + data))
    for pitch, start, end, velocity in song.notes:
        events.append((start, 2, bytes([0x90, pitch, velocity])))
        # Before what begins at the same tick, except a note of no length.
        events.append((end, 1 if end > start else 3, bytes([0x80, pitch, 64])))
    track, latest = bytearray(), 0
    for tick, _, event in sorted(events, key=lambda event: event[:2]):  # equal ones in order
        track += _variable_length(tick - latest) + event
        latest = tick
    track += b"\0\xff\x2f\0"
    header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, song.resolution)
    return header + struct.pack(">4sI", b"MTrk", len(track)) + bytes(track)


def _variable_length(value: int) -> bytes:
    """Encode a number, seven bits a byte."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))
