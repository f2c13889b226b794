"""Rounds of protocol v1 as they are on the wire: `python -m tests.vectors.secagg.v1.generate` writes rounds.json.

The file changes only with a new protocol version, in a new folder, or where an honest coordinator sends less of what
every member of this version takes; the test compares what the code does with it.
"""

import hashlib
import json
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from lepton_core.secagg.payload import encode_payload
from lepton_core.secagg.simulate import run_round
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import LaneGroup
from tests.protocol.seeded import SeededRandomness, make_identities, make_terms, pack_values

PATH = Path(__file__).parent / "rounds.json"
#: Which member (by place in the roster) is lost before which step.
ROUNDS = {
    "five, all there": (5, {}),
    **{f"five, one lost before {step.name}": (5, {2: step}) for step in Step},
    "sixteen, one lost before SHARE, two before INPUT, one each before CONSISTENCY and UNMASK": (
        16,
        {1: Step.SHARE, 4: Step.INPUT, 7: Step.INPUT, 10: Step.CONSISTENCY, 13: Step.UNMASK},
    ),
}
#: Rounds in which a member is also lost in the middle of its upload: (members, lost as above, torn).
TORN_ROUNDS = {
    "sixteen, one lost before SHARE, before INPUT, in mid-upload, before CONSISTENCY and before UNMASK": (
        16,
        {1: Step.SHARE, 4: Step.INPUT, 10: Step.CONSISTENCY, 13: Step.UNMASK},
        7,
    ),
}
#: The round whose messages are written out whole; of the others each message's SHA-256 is.
WHOLE = "five, one lost before INPUT"


def plain(value):
    """A message as JSON values, bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value):
        return {
            "type": type(value).__name__,
            **{field.name: plain(getattr(value, field.name)) for field in fields(value)},
        }
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def make_values(place, terms):
    """One member's integers by a formula, so that no generator's stream can change them; all below 2^12."""
    return [
        np.array([(7919 * place + 104_729 * (index + 1)) % 4096 for index in range(group.length)], dtype=np.int64)
        for group in terms.lane_groups
    ]


def run(name):
    """One round of the table, as JSON values."""
    count, lost, torn = TORN_ROUNDS[name] if name in TORN_ROUNDS else (*ROUNDS[name], None)
    terms = make_terms((LaneGroup(9, 16), LaneGroup(5, 21)))
    identities = make_identities(count)
    inputs = {key.member: pack_values(make_values(place, terms), terms) for place, key in enumerate(identities)}
    drop = {identities[index].member: step for index, step in lost.items()}
    halved = () if torn is None else (identities[torn].member,)
    ended = run_round(identities, inputs, terms, SeededRandomness(name), drop=drop, torn=halved)
    messages = [{"member": member.hex(), "message": plain(message)} for member, message in ended.log]
    if name != WHOLE:
        messages = [hashlib.sha256(json.dumps(m, sort_keys=True).encode()).hexdigest() for m in messages]
    golden = {
        "members": count,
        "lost": {str(index): step.name for index, step in lost.items()},
        "survivors": [member.hex() for member in ended.result.survivors],
        "pair_masks": ended.result.plan.pair_masks,
        "sum": [[str(word) for word in group] for group in ended.groups],
        "messages": messages,
    }
    if halved:  # what had come of the torn upload; of whole ones the trailers tell the digests
        golden["torn"] = {member.hex(): encode_payload(ended.uploads[member]).hex() for member in halved}
    return golden


def make():
    """The whole file."""
    return {
        "generator": "python -m tests.vectors.secagg.v1.generate",
        "source": "Lepton, secure aggregation protocol v1; keys and randomness from tests/protocol/seeded.py",
        "rounds": {name: run(name) for name in (*ROUNDS, *TORN_ROUNDS)},
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(make(), indent=1) + "\n")
