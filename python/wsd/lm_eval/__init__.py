"""A model class for lm-evaluation-harness, registered as `wsd`.

    python -m wsd.lm_eval run --model wsd --model_args base=./large,draft=./small --tasks gsm8k

is the harness's own command with this class registered (as is `wsd-lm-eval`). In a program, import
this module before `lm_eval.simple_evaluate(model="wsd", ...)`.

Answers are the strategy's; log-likelihoods are those of its output model, which is the base unless
the draft answers alone.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterable, List, Optional, Tuple, Union

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from .. import Strategy

MAX_TOKENS = "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"
"""The names by which tasks limit the length of an answer, the strongest first."""

IGNORED = "num_beams", "use_cache"
"""Parameters of tasks that have no meaning here, or one that changes nothing."""


class Conversation(str):
    """A rendered conversation that remembers its messages, so that each model reads them in its own
    form."""

    messages: List[Dict[str, str]]


@register_model("wsd")
class WsdLM(TemplateLM):
    """A strategy as a model of lm-evaluation-harness.

    `batch_size` is the number of requests at a time. Further arguments are those of `wsd.Strategy`:
    `base`, `draft`, `window`, `threshold`, `device`, `dtype` and so on.
    """

    def __init__(
        self,
        strategy: str = "wsd",
        batch_size: Union[int, str, None] = None,
        max_batch_size: Optional[int] = None,
        max_gen_toks: int = 256,
        **keywords: Any,
    ) -> None:
        super().__init__()
        self.strategy = Strategy(strategy, **keywords)
        self.model = self.strategy.engine
        self.batch_size = int(str(batch_size)) if str(batch_size).isdigit() else max_batch_size or 16
        self.max_gen_toks = max_gen_toks

    @property
    def eot_token_id(self) -> int:
        if self.model.eos_token is not None:
            return self.model.eos_token
        return self.model.end_tokens[0]

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: the one that begins raw texts, if there is one."""
        plain, whole = self.model.tokenize("a"), self.model.tokenize("a", bos=True)
        return whole[0] if len(whole) > len(plain) else self.eot_token_id

    @property
    def max_length(self) -> int:
        return self.model.max_len

    @property
    def tokenizer_name(self) -> str:
        return self.model.name.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: Optional[bool] = None, **_: Any) -> List[int]:
        return self.model.tokenize(string, bos=add_special_tokens is not False)

    def apply_chat_template(self, chat_history: List[Dict[str, str]], add_generation_prompt: bool = True) -> str:
        # A conversation that ends with the beginning of an answer is continued either way.
        rendered = Conversation(self.model.apply_chat_template(chat_history))
        rendered.messages = chat_history
        return rendered

    def _loglikelihood_tokens(
        self,
        requests: List[Tuple[Tuple[str, str], List[int], List[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> List[Tuple[float, bool]]:
        results: List[Tuple[float, bool]] = []
        progress = tqdm(total=len(requests), disable=disable_tqdm, desc="Running loglikelihood requests")
        for batch in _batches(requests, self.batch_size):
            scores = self.model.loglikelihoods([(context, continuation) for _, context, continuation in batch])
            for (texts, _, _), score in zip(batch, scores):
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, score)
            results += scores
            progress.update(len(batch))
        progress.close()
        return results

    def loglikelihood_rolling(self, requests: List[Instance], disable_tqdm: bool = False) -> List[float]:
        totals = []
        for (text,) in tqdm([request.args for request in requests], disable=disable_tqdm):
            tokens = self.tok_encode(text, add_special_tokens=False)
            # A window and its context are one list here, which must not exceed the context length.
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length - 1, 1)
            pairs = [make_disjoint_window(window) for window in windows]
            total = sum(score for score, _ in self.model.loglikelihoods(pairs))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
            totals.append(total)
        return totals

    def generate_until(self, requests: List[Instance], disable_tqdm: bool = False) -> List[str]:
        progress = tqdm(total=len(requests), disable=disable_tqdm, desc="Running generate_until requests")

        def answer(request: Instance) -> str:
            context, parameters = request.args
            text = self._answer(context, dict(parameters))
            progress.update()
            return text

        with ThreadPoolExecutor(self.batch_size) as threads:
            answers = list(threads.map(answer, requests))
        progress.close()
        for request, text in zip(requests, answers):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return answers

    def _answer(self, context: str, parameters: Dict[str, Any]) -> str:
        until = parameters.pop("until", None) or []
        limits = [parameters.pop(name, None) for name in MAX_TOKENS]
        max_tokens = next((limit for limit in limits if limit is not None), self.max_gen_toks)
        for name in IGNORED:
            parameters.pop(name, None)
        if not parameters.pop("do_sample", float(parameters.get("temperature", 0)) > 0):
            parameters["temperature"] = 0.0
        stop = [text for text in ([until] if isinstance(until, str) else until) if text]
        terms = dict(parameters, stop=stop, max_tokens=int(max_tokens))
        if isinstance(context, Conversation):
            return self.strategy.generate(context.messages, **terms).text
        tokens = self.tok_encode(context)
        if len(tokens) + int(max_tokens) <= self.max_length:
            return self.strategy.generate(context, raw=True, **terms).text
        # The harness keeps the end of a context that is too long.
        kept = self.model.detokenize(tokens[-max(1, self.max_length - int(max_tokens)) :])
        return self.strategy.generate(kept, raw=True, **terms).text


def _batches(requests: List[Any], size: int) -> Iterable[List[Any]]:
    return (requests[start : start + size] for start in range(0, len(requests), size))


def main() -> None:
    """Runs lm-evaluation-harness with the model `wsd`."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
