"""From sampling options to a sampler and its request: conditions, prime, engine, precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wavegen.audio.quantize import Quantizer
from wavegen.data.conditioning import ClipCondition, Conditioner, list_labels, parse_label
from wavegen.device import available_cores
from wavegen.errors import ParameterError
from wavegen.sampling.engines import PRECISIONS, EngineSource, build_engine, choose_engine
from wavegen.sampling.engines.engine import Engine
from wavegen.sampling.options import SamplingOptions, as_mono, samples_in
from wavegen.sampling.sampler import Request, Sampler

MAX_PRECISION_COST = 0.01  # bits/sample
Notice = Callable[[str], None]


@dataclass(frozen=True)
class Generator:
    """Turns sampling options into a sampler and its request.

    Args:
        source: the model, for engines.
        quantizer: its companding.
        conditioner: what it is conditioned on.
        sample_rate_hz: its rate.
        precision_costs: what lower precisions of its weights cost in sampling, in bits/sample; empty if not measured.
    """

    source: EngineSource
    quantizer: Quantizer
    conditioner: Conditioner
    sample_rate_hz: int
    precision_costs: Mapping[str, float]

    def prepare(
        self, seconds: float | None, options: SamplingOptions, candidates: int = 1, notice: Notice | None = None
    ) -> tuple[Sampler, Request]:
        """Check options against the model, and build the sampler of all candidates and the request for the clips.

        Args:
            seconds: length of each clip; None for the length of the mel frames, or without end where there are none.
            options: how to generate.
            candidates: to generate for each clip.
            notice: called with the label and the engine that were chosen, and why.

        Raises:
            ParameterError: an option is not for this model.
        """
        n_samples = None if seconds is None else samples_in(seconds, self.sample_rate_hz)
        if options.prime is not None and self.conditioner.mel is not None:
            problem = "not with a model conditioned on mel spectrograms, which begins where they begin; leave it out"
            raise ParameterError("prime", problem)
        conditions = self._conditions(options, notice)
        if conditions and (frames := conditions[0].frames) is not None:
            longest = len(frames) * conditions[0].hop_length
            n_samples = frames.n_samples if n_samples is None else n_samples
            if n_samples > longest:
                most = f"{longest / self.sample_rate_hz:g} s, as the mel frames go"
                raise ParameterError("seconds", f"expected at most {most}, found {seconds:g}")
        prime = None if options.prime is None else self.quantizer.encode(as_mono(options.prime))
        self.source.distribution.check(options.truncation)
        request = Request(n_samples, options.count, options.seed, options.truncation, prime, conditions)
        return Sampler(self._engine(options, options.count * candidates, notice), self.quantizer), request

    def label_weights(self, label: str | Mapping[str, float]) -> Mapping[str, float]:
        """Return a user's label as weights by name."""
        return parse_label(label, self.conditioner.labels) if isinstance(label, str) else label

    def clip_labels(self, options: SamplingOptions) -> list[str | None]:
        """Return the labels of the clips in turn; None for a mix, and in a model without labels."""
        return [next(iter(each)) if len(each) == 1 else None for each in self._label_weights(options)] or [None]

    def _label_weights(self, options: SamplingOptions) -> list[Mapping[str, float]]:
        """Return the labels of the clips in turn, as weights by name; those that the model knows by default."""
        chosen = [self.label_weights(label) for label in options.label_list]
        return chosen or [{label: 1.0} for label in self.conditioner.labels[: options.count]]

    def _conditions(self, options: SamplingOptions, notice: Notice | None) -> list[ClipCondition] | None:
        """Return each clip's condition; None in a model without any."""
        count, known = options.count, self.conditioner.labels
        if known and not options.label_list and notice:
            notice(f"label: {list_labels(known[:count])} (the default; the model knows {list_labels(known)})")
        chosen = self._label_weights(options)
        conditions = [self.conditioner.to_generate(label, options.mel) for label in chosen]
        if not chosen:
            conditions = [self.conditioner.to_generate(None, options.mel)]
        some = [condition for condition in conditions if condition is not None]
        return [some[i % len(some)] for i in range(count)] if some else None

    def _engine(self, options: SamplingOptions, n_streams: int, notice: Notice | None) -> Engine:
        """Build the engine; ``auto`` is the fused one on a CPU, in the lowest precision that costs little."""
        kind, asked = self.source.kind, options.precision
        exact = "float32" if asked == "auto" else asked
        chosen = choose_engine(options.engine, self.source.device_type, exact, kind)
        is_fused = chosen == "numba"
        if not is_fused and (options.threads or 1) > 1:
            remedy = {"engine": "numba"} if kind == "wavenet" else {"threads": 1}
            raise ParameterError("threads", f"the {chosen} engine runs on one thread", give=remedy)
        name = self._lowest_precision(chosen) if asked == "auto" else asked
        precision = next(known for known in PRECISIONS if known == name)
        threads = min(options.threads or available_cores(), n_streams) if is_fused else 1
        if notice:
            cost = self.precision_costs.get(precision)
            reason = "" if cost is None else f" (on held-out audio {round(cost, 4) + 0.0:+.4f} bits/sample)"
            shared = f", {threads} threads" if threads > 1 else ""
            notice(f"engine: {chosen}, {precision} weights{reason}{shared}")
        if is_fused:
            from wavegen.sampling.engines.numba_fused import compile_kernel

            compile_kernel(precision, notice or print)
        return build_engine(chosen, self.source, precision, threads)

    def _lowest_precision(self, engine: str) -> str:
        """Return the precision with the fewest bits whose measured cost is small enough."""
        lower = reversed(PRECISIONS) if engine == "numba" else ()
        return next((p for p in lower if self.precision_costs.get(p, math.inf) <= MAX_PRECISION_COST), "float32")
