"""What can happen to a file, drawn by a seeded generator."""

import json
import os

ODD_NUMBERS = (-1, 0, 1, 2, 10**6, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"))
ODD_TEXTS = ("", "x", "\0", "\x1b[31m", "../..", "é" * 40, "a" * 5000, "null", "0 0", "\ud800")
ODD_VALUES = (*ODD_NUMBERS, *ODD_TEXTS, None, True, [], {}, [[]], {"": None})


def flip_bit(rng, content):
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def replace_byte(rng, content):
    at = rng.randrange(len(content))
    return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]


def truncate(rng, content):
    return content[: rng.randrange(len(content))]


def blank(rng, content):
    """A block of zeros, as some file systems leave after a power cut."""
    at = rng.randrange(len(content))
    size = min(rng.choice((1, 16, 512)), len(content) - at)
    return content[:at] + b"\0" * size + content[at + size :]


def cut_out(rng, content):
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.choice((1, 7, 100)) :]


def insert(rng, content):
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.choice((1, 3, 50))) + content[at:]


def duplicate_line(rng, content):
    return _with_lines(rng, content, lambda lines, at: lines.insert(at, lines[at]))


def delete_line(rng, content):
    return _with_lines(rng, content, lambda lines, at: lines.pop(at))


def swap_lines(rng, content):
    other = rng.random()

    def swap(lines, at):
        there = int(other * len(lines))
        lines[at], lines[there] = lines[there], lines[at]

    return _with_lines(rng, content, swap)


def replace_digit(rng, content):
    """The smallest change of a number that stays a number."""
    places = [at for at, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return flip_bit(rng, content)
    at = rng.choice(places)
    return content[:at] + str(rng.choice([d for d in range(10) if d != content[at] - 48])).encode() + content[at + 1 :]


def _with_lines(rng, content, change):
    lines = content.split(b"\n")
    change(lines, rng.randrange(len(lines)))
    return b"\n".join(lines)


BYTES = (flip_bit, replace_byte, truncate, blank, cut_out, insert, duplicate_line, delete_line, swap_lines, replace_digit)


def replace_value(rng, document):
    """Another value, of a right or a wrong kind, somewhere in a JSON document."""
    places = list(_places(document))
    holder, key = rng.choice(places)
    holder[key] = rng.choice([v for v in ODD_VALUES if not (isinstance(v, type(holder[key])) and v == holder[key])])
    return document


def _places(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield value, at
            yield from _places(inner)


def damage(rng, path, others):
    """Damages a file in one way; returns how, in words, or None where nothing was changed.

    Args:
        rng: a `random.Random`.
        path: of the file.
        others: files of the same name in other places, one of which may be put in its place.
    """
    before = path.read_bytes()
    ways = [*(way.__name__ for way in BYTES), "delete", "empty", "folder", "garbage"]
    ways += ["swap"] * 2 if others else []
    ways += ["value"] * 4 if path.suffix in (".json", ".jsonl") else []
    way = rng.choice(ways)
    if way == "delete":
        path.unlink()
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "folder":
        path.unlink()
        path.mkdir()
    elif way == "garbage":
        path.write_bytes(rng.randbytes(rng.choice((1, 100, 5000))))
    elif way == "swap":
        path.write_bytes(rng.choice(others).read_bytes())
    elif way == "value":
        path.write_bytes(_value_replaced(rng, path, before))
    else:
        path.write_bytes(next(w for w in BYTES if w.__name__ == way)(rng, before))
    if path.is_file() and path.read_bytes() == before:
        return None
    os.utime(path.parent)
    return way


def _value_replaced(rng, path, before):
    if path.suffix == ".json":
        return json.dumps(replace_value(rng, json.loads(before)), indent=2).encode()
    lines = before.split(b"\n")
    at = rng.choice([n for n, line in enumerate(lines) if line])
    lines[at] = json.dumps(replace_value(rng, json.loads(lines[at]))).encode()
    return b"\n".join(lines)
