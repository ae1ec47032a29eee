"""A GPU that serves requests and knows what each of them took: what no meter tells, and attribution is held to.

It batches as vLLM does: every step computes some of one waiting prompt and one token of each request that is past its
own. Reading the weights is paid once a step and is everybody's; a prompt's token, a generated token and the context
looked back on are paid by whose they are. What is drawn with nothing to do is shared by time, among those in flight.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field

from metering.rules.carbon.integration import MINUTE_US
from metering.rules.carbon.weights import Request

IDLE_MW = 70_000
STEP_US = 50_000
PREFILL_TOKENS_A_STEP = 512
WEIGHTS_NJ = 8_000_000_000
PROMPT_TOKEN_NJ = 66_000_000
OUTPUT_TOKEN_NJ = 140_000_000
CONTEXT_TOKEN_NJ = 100_000
"""Energy of a step's reading of the weights, of a token read, of one generated, and of one looked back on. To each
other they are as on a real GPU, give or take what data sheets don't tell: an H100 reads the 16 GB of 8 billion
parameters in 4.8 ms, and computes a token of a prompt in 0.03 ms."""


@dataclass(slots=True)
class Served:
    """A request while it is served: tokens still to read, tokens written, and what it took so far, in nJ."""

    number: int
    started_us: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    unread: int = 0
    written: int = 0
    first_token_us: int | None = None
    ended_us: int = 0
    taken_nj: int = 0

    def __post_init__(self) -> None:
        self.unread = self.input_tokens - self.cached_input_tokens

    @property
    def request(self) -> Request:
        """As a gateway tells of it."""
        return Request(
            self.number.to_bytes(16), self.started_us, self.ended_us, self.first_token_us, self.input_tokens,
            self.cached_input_tokens, self.output_tokens,
        )  # fmt: skip


@dataclass(slots=True)
class Truth:
    """What happened: requests with what they took (µJ), and what the GPU used by minute (nJ)."""

    requests: list[Request] = field(default_factory=list)
    taken_uj: dict[bytes, int] = field(default_factory=dict)
    minutes_nj: dict[int, int] = field(default_factory=lambda: defaultdict(int))


def arrivals(seed: int, starts_us: int, seconds: int, per_minute: float) -> list[Served]:
    """Requests of a mixed kind: chats, long documents with short answers, short questions with long answers."""
    draw = random.Random(seed)
    kinds = [(200, 300), (6_000, 120), (80, 900), (1_500, 250)]
    at, found = 0.0, []
    while (at := at + draw.expovariate(per_minute / 60)) < seconds:
        read, write = (max(1, round(mean * draw.lognormvariate(0, 0.6))) for mean in draw.choice(kinds))
        cached = read * 3 // 4 if draw.random() < 0.25 else 0
        found.append(Served(len(found), starts_us + int(at * 1_000_000), read, cached, write))
    return found


def serve(waiting: list[Served], starts_us: int, minutes: int) -> Truth:
    """Serve requests; those that aren't over when the minutes are run on beyond them."""
    truth = Truth()
    running: list[Served] = []
    now_us, ends_us = starts_us, starts_us + minutes * MINUTE_US
    while now_us < ends_us or running:
        while waiting and waiting[0].started_us <= now_us:
            running.append(waiting.pop(0))
        _step(truth, running, now_us)
        now_us += STEP_US
        for one in [one for one in running if one.written == one.output_tokens]:
            one.ended_us = now_us
            truth.requests.append(one.request)
            truth.taken_uj[one.request.identity] = one.taken_nj // 1_000
            running.remove(one)
    return truth


def _step(truth: Truth, running: list[Served], now_us: int) -> None:
    idle_nj = IDLE_MW * STEP_US
    taken = defaultdict(int, {one.number: idle_nj // len(running) for one in running})
    reading = next((one for one in running if one.unread), None)
    writing = [one for one in running if not one.unread]
    if reading is not None:
        read = min(reading.unread, PREFILL_TOKENS_A_STEP)
        reading.unread -= read
        taken[reading.number] += read * PROMPT_TOKEN_NJ
    active = [*writing, *([] if reading is None else [reading])]
    for one in active:
        taken[one.number] += WEIGHTS_NJ // len(active)
    for one in writing:
        taken[one.number] += OUTPUT_TOKEN_NJ + (one.input_tokens + one.written) * CONTEXT_TOKEN_NJ
        one.written += 1
        if one.first_token_us is None:
            one.first_token_us = now_us
    for one in running:
        one.taken_nj += taken[one.number]
    truth.minutes_nj[now_us // MINUTE_US * MINUTE_US] += sum(taken.values()) if running else idle_nj
