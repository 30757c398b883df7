#!/usr/bin/env python3
"""Writes crates/eval/tests/goldens/: verdicts of lm-evaluation-harness's graders.

    NLTK_DATA=FOLDER venv/bin/python scripts/eval_goldens.py DATA

needs lm-eval 0.4.9 (its files only), nltk 3.10.4 with punkt_tab, langdetect 1.0.9, immutabledict, numpy.
`ifeval.json` and `gsm8k.json` hold texts written for this purpose; `ifeval_data.json` holds only verdicts
on answers of DATA/alpaca_eval to the prompts of DATA/ifeval, varied as VARIANTS tells. Verdicts are `0`
and `1`; `?` stands where the language detector, which draws random numbers, gives several answers.
"""

import ast
import importlib
import importlib.util
import json
import logging
import random
import re
import string
import sys
import types
from pathlib import Path

import langdetect
import numpy as np

OUT = Path(__file__).resolve().parent.parent / "crates/eval/tests/goldens"
SEEDS = range(3)


def harness():
    """Imports the graders without lm-eval's own dependencies."""
    root = Path(importlib.util.find_spec("lm_eval").origin).parent
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.ifeval", "lm_eval.filters", "lm_eval.api"):
        module = types.ModuleType(name)
        module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module
    for name in ("lm_eval.api.filter", "lm_eval.api.registry"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["lm_eval.api.filter"].Filter = object
    sys.modules["lm_eval.api.registry"].register_filter = lambda _: lambda item: item
    util = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
    import nltk

    tokenizer = nltk.tokenize.punkt.PunktTokenizer("english")
    util._get_sentence_tokenizer = lambda: tokenizer
    tree = ast.parse((root / "api/metrics.py").read_text())
    found = next(node for node in tree.body if getattr(node, "name", "") == "exact_match_hf_evaluate")
    scope = {"np": np, "re": re, "string": string}
    exec(compile(ast.Module([found], []), "metrics.py", "exec"), scope)
    utils = importlib.import_module("lm_eval.tasks.ifeval.utils")
    return utils, importlib.import_module("lm_eval.filters.extraction"), scope["exact_match_hf_evaluate"]


UTILS, EXTRACTION, EXACT_MATCH = harness()


DETECTED = {}
FACTORY = langdetect.detector_factory


def detect(text):
    """Detects the language of a text; with other seeds only where the first one leaves a doubt."""
    if text not in DETECTED:
        found = []
        for seed in SEEDS:
            FACTORY._factory.seed = seed
            try:
                best = langdetect.detect_langs(text)[0]
            except langdetect.LangDetectException as error:
                best = error
            found.append(best if isinstance(best, Exception) else best.lang)
            if isinstance(best, Exception) or best.prob > 0.999:
                found *= len(SEEDS)
                break
        DETECTED[text] = found
    result = DETECTED[text][STATE["seed"]]
    if isinstance(result, Exception):
        raise result
    return result


STATE = {"seed": 0}
FACTORY.init_factory()
langdetect.detect = detect


def follows(names, kwargs, text):
    """Returns one string of verdicts per mode, strict and loose."""
    seen = []
    is_random = any(name.startswith(("language", "change_case:english")) for name in names)
    for seed in SEEDS if is_random else [0]:
        STATE["seed"] = seed
        example = UTILS.InputExample(0, names, "", kwargs)
        seen.append([
            UTILS.test_instruction_following_strict(example, text).follow_instruction_list,
            UTILS.test_instruction_following_loose(example, text).follow_instruction_list,
        ])
    merged = np.array(seen)
    same = (merged == merged[0]).all(axis=0)
    return ["".join("?" if not ok else str(int(bit)) for ok, bit in zip(*pair)) for pair in zip(same, merged[0])]


ENGLISH = [
    "The river was low, and the boats lay on the sand.",
    "Dr. Alma Reed met Mr. J. K. Osei at 5 p.m. in St. Paul.",
    "We counted 3.5 kg of apples, i.e. about 20.",
    "Who would have thought so? Nobody!",
    "She said, \"It is late.\" Then she left.",
    "He asked (quietly): 'Are you there?' No one answered.",
    "The U.S. delegation arrived on Jan. 5. Its luggage did not.",
    "Prices rose by 4.2%... but wages stayed the same.",
    "See fig. 3 and no. 7 for details.",
    "NASA and ESA BUILT A PROBE together.",
    "I think that SHE CAN'T come; we'll see.",
    "A well-known word: rock-and-roll, isn't it?",
    "Visit www.example.org or write to me@example.org.",
    "The cat sat on the mat. the mat was red.",
    "It's 10 a.m. now! Well, well.",
    "Version 2.0 is out -- at last. Hurrah!!!",
    "The end came in 1999. 2000 was a good year.",
    "“Curly quotes are nice.” ‘They are.’ So it goes.",
    "Gen. Lee et al. wrote vol. 2 of it. Anyone can read it.",
    "My answer is maybe.",
]
OTHERS = {
    "de": "Der Zug fährt heute später, weil auf der Strecke gebaut wird. Wir warten seit einer Stunde am Bahnhof.",
    "fr": "Le marché ouvre à huit heures et les gens achètent du pain frais. Il fait très beau aujourd'hui.",
    "es": "Mañana iremos a la playa con nuestros amigos, si el tiempo es bueno. Los niños están muy contentos.",
    "it": "La nonna prepara la cena mentre i bambini giocano in giardino. Domani andremo tutti al mare.",
    "pt": "O menino gosta de ler livros na biblioteca e não quer voltar para casa. Amanhã vai chover muito.",
    "fi": "Kissa nukkuu sohvalla koko päivän, ja koira odottaa oven vieressä. Huomenna sataa lunta.",
    "pl": "Wczoraj poszliśmy do lasu zbierać grzyby, ale padał deszcz. Dzisiaj świeci słońce i jest ciepło.",
    "sw": "Watoto wanacheza nje ya nyumba na mama anapika chakula cha jioni. Kesho tutakwenda sokoni pamoja.",
    "vi": "Hôm nay trời đẹp nên chúng tôi đi dạo trong công viên. Ngày mai tôi sẽ về quê thăm bà.",
    "ru": "Сегодня мы идём в музей, потому что на улице холодно. Завтра обещают снег и сильный ветер.",
    "bg": "Днес времето е хубаво и отиваме в планината с приятели. Утре ще работим в градината.",
    "uk": "Сьогодні ми йдемо до лісу, бо там багато грибів. Завтра приїде бабуся з онуками.",
    "hi": "आज मौसम बहुत अच्छा है और बच्चे बाहर खेल रहे हैं। कल हम सब बाज़ार जाएँगे।",
    "mr": "आज हवा छान आहे आणि मुले बाहेर खेळत आहेत. उद्या आम्ही सर्व बाजारात जाणार आहोत.",
    "ne": "आज मौसम राम्रो छ र केटाकेटीहरू बाहिर खेलिरहेका छन्। भोलि हामी बजार जानेछौं।",
    "bn": "আজ আবহাওয়া খুব ভালো এবং শিশুরা বাইরে খেলছে। কাল আমরা সবাই বাজারে যাব।",
    "pa": "ਅੱਜ ਮੌਸਮ ਬਹੁਤ ਵਧੀਆ ਹੈ ਅਤੇ ਬੱਚੇ ਬਾਹਰ ਖੇਡ ਰਹੇ ਹਨ। ਕੱਲ੍ਹ ਅਸੀਂ ਬਾਜ਼ਾਰ ਜਾਵਾਂਗੇ।",
    "gu": "આજે હવામાન ખૂબ સારું છે અને બાળકો બહાર રમે છે. કાલે અમે બધા બજારમાં જઈશું.",
    "ta": "இன்று வானிலை மிகவும் நன்றாக இருக்கிறது, குழந்தைகள் வெளியே விளையாடுகிறார்கள்.",
    "te": "ఈరోజు వాతావరణం చాలా బాగుంది, పిల్లలు బయట ఆడుకుంటున్నారు. రేపు మేము బజారుకు వెళ్తాము.",
    "kn": "ಇಂದು ಹವಾಮಾನ ತುಂಬಾ ಚೆನ್ನಾಗಿದೆ ಮತ್ತು ಮಕ್ಕಳು ಹೊರಗೆ ಆಡುತ್ತಿದ್ದಾರೆ.",
    "ar": "الجو جميل اليوم والأطفال يلعبون في الحديقة. غدا سنذهب إلى السوق معا.",
    "fa": "امروز هوا خیلی خوب است و بچه‌ها بیرون بازی می‌کنند. فردا به بازار می‌رویم.",
    "ur": "آج موسم بہت اچھا ہے اور بچے باہر کھیل رہے ہیں۔ کل ہم سب بازار جائیں گے۔",
    "he": "היום מזג האוויר יפה והילדים משחקים בחוץ. מחר נלך כולנו לשוק.",
    "th": "วันนี้อากาศดีมาก เด็กๆ กำลังเล่นอยู่ข้างนอก พรุ่งนี้เราจะไปตลาด",
    "ko": "오늘은 날씨가 아주 좋아서 아이들이 밖에서 놀고 있습니다. 내일은 시장에 갑니다.",
    "ja": "今日は天気がとても良いので、子供たちは外で遊んでいます。明日は市場に行きます。",
}
FRAMES = [
    "{a} {b}",
    "{a}\n\n{b} {c}",
    "\"{a} {b}\"",
    "<<On {n} rivers>>\n{a}\n{b}",
    "<<>>\n{a}",
    "* {a}\n* {b}\n- {c}",
    "  * one\n\n  * two\n** not one **\n-three\n{a}",
    "Section 1\n{a}\nSection 2\n{b}\nSECTION 3 {c}",
    "{a}\n***\n{b}\n***\n{c}",
    "***{a} *** *** {b}",
    "{a} ****** {b}",
    "******{a}******\n{a}******",
    "{{\"a\": [1, 2.5e3, null], \"b\": \"{n}\\u00e9\"}}",
    "```json\n{{\"text\": \"x\", \"n\": NaN}}\n```",
    "```\n[1, 2,]\n```",
    "*{a}* and **{b}** and ** ** and *x*",
    "Dear [name],\n{a}\n[address], [date of birth]\nP.S. {b}",
    "{a}\n\np. s. {b}\nP.P.S {c}",
    "First repeat this, then answer.\n{a}",
    "{a} Any other questions?",
    "{a} is there anything else i can help with?\"",
    "Yes. My answer is no.\n{a}",
    "{n}\n\n'Tis said: {a}\n\n\"River\" banks. {b}",
    "\n\n{a}\n\n\n\nriver, {b}",
    "{a}\t{b}\r\n{c}",
    "1. {a}\n2. {b}\n3. {c}",
    "   ",
    "{n}",
]


def texts():
    """Composes the answers."""
    rng = random.Random(1)
    pool = ENGLISH + list(OTHERS.values())
    result = []
    for round_ in range(5):
        for frame in FRAMES:
            a, b, c = rng.sample(ENGLISH if round_ % 2 == 0 else pool, 3)
            text = frame.format(a=a, b=b, c=c, n=rng.choice("0 7 RIVER river 12,5 ½".split()))
            result.append(rng.choice([str, str, str, str.upper, str.lower])(text))
    result += list(OTHERS.values()) + ENGLISH + [" ".join(rng.sample(ENGLISH, 12)) for _ in range(20)]
    result += [" ".join(rng.sample(ENGLISH, 6)).lower() for _ in range(5)]
    result += [" ".join(rng.sample(ENGLISH, 6)).upper() for _ in range(5)]
    return list(dict.fromkeys(result))


def instructions():
    """Lists the instructions with arguments."""
    both = ["at least", "less than"]
    yield from (("keywords:existence", {"keywords": words}) for words in (["river"], ["nobody", "late"], ["a.b"]))
    yield from (("keywords:frequency", {"keyword": "the", "frequency": 3, "relation": r}) for r in both)
    yield from (("keywords:forbidden_words", {"forbidden_words": w}) for w in (["rock"], ["mat", "is"], ["я", "%"]))
    yield from (("keywords:letter_frequency", {"letter": "E", "let_frequency": 6, "let_relation": r}) for r in both)
    yield from (("language:response_language", {"language": name}) for name in ["en", *OTHERS])
    for n in (1, 2, 3, 5, 8, 13):
        yield "length_constraints:number_sentences", {"num_sentences": n, "relation": "at least"}
    yield "length_constraints:number_sentences", {"num_sentences": 4, "relation": "less than"}
    yield from (("length_constraints:number_paragraphs", {"num_paragraphs": n}) for n in (1, 2, 3))
    yield from (("length_constraints:number_words", {"num_words": n, "relation": r}) for n in (5, 20) for r in both)
    for n, nth, word in ((2, 1, "river"), (3, 2, "tis"), (2, 2, "river"), (3, 3, "River")):
        kwargs = {"num_paragraphs": n, "nth_paragraph": nth, "first_word": word}
        yield "length_constraints:nth_paragraph_first_word", kwargs
    yield from (("detectable_content:number_placeholders", {"num_placeholders": n}) for n in (1, 3))
    yield from (("detectable_content:postscript", {"postscript_marker": m}) for m in ("P.S.", "P.P.S", "Hurrah"))
    yield from (("detectable_format:number_bullet_lists", {"num_bullets": n}) for n in (1, 2, 3))
    yield "detectable_format:constrained_response", {}
    yield from (("detectable_format:number_highlighted_sections", {"num_highlights": n}) for n in (1, 3, 4))
    for mark, n in (("Section", 2), ("SECTION", 1), ("PART", 1)):
        yield "detectable_format:multiple_sections", {"section_spliter": mark, "num_sections": n}
    yield from ((name, {}) for name in ("detectable_format:json_format", "detectable_format:title"))
    yield "combination:two_responses", {}
    yield "combination:repeat_prompt", {"prompt_to_repeat": " First repeat this, then answer. "}
    yield from (("startend:end_checker", {"end_phrase": e}) for e in ("Any other questions?", "So it goes."))
    yield from ((name, {}) for name in ("startend:quotation", "punctuation:no_comma"))
    for n in (1, 3, 6, 10):
        kwargs = {"capital_frequency": n, "capital_relation": "at least"}
        yield "change_case:capital_word_frequency", kwargs
    yield "change_case:capital_word_frequency", {"capital_frequency": 4, "capital_relation": "less than"}
    yield from ((name, {}) for name in ("change_case:english_capital", "change_case:english_lowercase"))


VARIANTS = {
    "as it is": lambda text, other: text,
    "upper case": lambda text, other: text.upper(),
    "lower case": lambda text, other: text.lower(),
    "in quotation marks": lambda text, other: f'"{text}"',
    "two answers": lambda text, other: f"{text}\n******\n{other}",
    "without commas": lambda text, other: text.replace(",", ""),
    "sections and a postscript": lambda text, other: f"Section 1\n{text}\n***\nSection 2 [x]\nP.S. *done*",
    "a heading line": lambda text, other: f"<<Answer>>\n{text}\n- end",
}


def data(folder):
    """Yields (key, one string per variant) for each prompt of the benchmark."""
    answers = [
        json.loads((folder / "alpaca_eval" / f"{name}.json").read_text())
        for name in ("text_davinci_003", "outputs__phi-2-sft", "outputs__vicuna-7b-v1.5", "gpt4_1106_preview")
    ]
    for index, line in enumerate((folder / "ifeval/input_data.jsonl").open()):
        row = json.loads(line)
        cells = []
        for number, vary in enumerate(VARIANTS.values()):
            chosen = answers[number % len(answers)]
            text = chosen[(index * 7 + number * 101) % len(chosen)]["output"]
            text = vary(text, chosen[index % len(chosen)]["output"])
            kwargs = [{k: v for k, v in item.items() if v is not None} for item in row["kwargs"]]
            cells.append("/".join(follows(row["instruction_id_list"], kwargs, text)))
        yield row["key"], " ".join(cells)


def gsm8k():
    """Lists answers with their extractions and verdicts."""
    numbers = ["18", "1,200", "$1,200", "-5", "3.5", "1,200.", "$18.00", "0.5%", "twelve", "12 13", "--7", "1..2", "$"]
    frames = ["So it is {}.\n#### {}", "#### {} and {}", "The answer is {}", "{}\n{}\n", "####{}", "#### #### {}", "{}. {}."]
    strict = EXTRACTION.RegexFilter(r"#### (\-?[0-9\.\,]+)")
    flexible = EXTRACTION.RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)
    ignored = [",", r"\$", "(?s).*#### ", r"\.$"]
    for frame in frames:
        for index, number in enumerate(numbers):
            answer = frame.format(number, numbers[index - 3])
            for gold in ("It is 18.\n#### 18", "x\n#### 1,200", "#### -5", "#### 3.5"):
                found = [rule.apply([[answer]], None)[0][0] for rule in (strict, flexible)]
                match = [EXACT_MATCH([one], [gold], regexes_to_ignore=ignored, ignore_case=True) for one in found]
                yield [gold, answer, *found, *(int(one["exact_match"]) for one in match)]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    folder = Path(sys.argv[1])
    logging.disable()
    rules, written = list(instructions()), texts()
    verdicts = ["/".join(follows([name for name, _ in rules], [dict(k) for _, k in rules], text)) for text in written]
    lines = [f"{json.dumps([text, bits], ensure_ascii=False)}" for text, bits in zip(written, verdicts)]
    rows = ",\n".join(json.dumps(rule, ensure_ascii=False) for rule in rules)
    (OUT / "ifeval.json").write_text(f'{{"instructions": [\n{rows}],\n"answers": [\n' + ",\n".join(lines) + "]}\n")
    print(len(rules) * len(written), "verdicts in each mode on own texts", flush=True)
    rows = list(data(folder))
    (OUT / "ifeval_data.txt").write_text("".join(f"{key} {bits}\n" for key, bits in rows))
    print(sum(len(bits.replace("/", "").replace(" ", "")) // 2 for _, bits in rows), "verdicts in each mode on data")
    rows = list(gsm8k())
    (OUT / "gsm8k.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "]\n")
    print(2 * len(rows), "verdicts on numbers")


if __name__ == "__main__":
    main()
