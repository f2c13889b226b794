"""A whole round of secure aggregation in memory: five members, one of whom vanishes in the middle."""

import numpy as np

from lepton_core.identity import IdentityKey
from lepton_core.ports import SystemRandomness
from lepton_core.secagg.lanes import pack_input, unpack_sum
from lepton_core.secagg.simulate import example_terms, run_round
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import LaneGroup

randomness = SystemRandomness()
members = [IdentityKey.generate(randomness) for _ in range(5)]

# Six integers of up to 16 bits and two of up to 32, summed over five members.
terms = example_terms([LaneGroup(6, 16), LaneGroup(2, 32)], members=5)
values = {key.member: [np.arange(6) * place, np.array([1, 1000 * place])] for place, key in enumerate(members, start=1)}
inputs = {member: pack_input(vectors, terms) for member, vectors in values.items()}

# The third member deals its shares, and is gone before it uploads.
ended = run_round(members, inputs, terms, randomness, drop={members[2].member: Step.INPUT})
if ended.error is not None:
    raise ended.error

small, large = unpack_sum(ended.groups, terms)
print(f"{len(ended.survivors)} of {len(members)} are in the sum: {small.tolist()} and {large.tolist()}")
print(f"what one of them sent: {ended.uploads[members[0].member][:2].tolist()}, and so on")
