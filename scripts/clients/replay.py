"""Request shapes of programs that cannot run here, replayed: python replay.py http://127.0.0.1:8080

Each is what the program is known to send, less what has no meaning without it. No package is needed.
"""

import json
import urllib.error
import urllib.request

from cases import FOX, QUESTION, SERVER, case, run


def send(path, body=None, headers=None):
    """Returns status, headers and text of a reply."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SERVER + path, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.headers, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def ok(path, body=None, headers=None):
    status, _, text = send(path, body, headers)
    assert status == 200, text
    return json.loads(text)


def streamed(path, body, headers=None):
    """Returns the data of the events of a stream."""
    status, headers, text = send(path, body, headers)
    assert status == 200 and headers["Content-Type"].startswith("text/event-stream"), text
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(chunks):
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


ANSWER = ok("/v1/chat/completions", {"model": "wsd", "messages": FOX})["choices"][0]["message"]["content"]


@case
def open_webui_lists_models():
    assert any(model["id"] == "wsd" for model in ok("/v1/models", headers={"Authorization": "Bearer none"})["data"])


@case
def open_webui_chats():
    body = {
        "stream": True, "model": "wsd", "messages": FOX, "stream_options": {"include_usage": True},
        "session_id": "s", "chat_id": "c", "id": None, "features": {"web_search": False},
        "variables": {"{{USER_NAME}}": "u"}, "background_tasks": {"title_generation": True}, "params": None,
    }
    assert text_of(streamed("/v1/chat/completions", body)) == ANSWER


@case
def open_webui_asks_for_a_title():
    body = {
        "model": "wsd", "messages": FOX, "stream": False, "max_completion_tokens": 50,
        "metadata": {"task": "title_generation", "chat_id": "c"},
    }
    assert ok("/v1/chat/completions", body)["choices"][0]["message"]["content"]


@case
def open_webui_with_all_its_sliders():
    body = {
        "stream": True, "model": "wsd", "messages": FOX, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
        "max_tokens": 40, "frequency_penalty": 0.4, "presence_penalty": 0.2, "repeat_penalty": 1.1, "seed": 1,
        "stop": ["<end>"], "logit_bias": {"5": -10}, "reasoning_effort": "medium",
    }
    assert text_of(streamed("/v1/chat/completions", body))


@case
def open_webui_over_ollama():
    assert ok("/api/version")["version"]
    assert any(model["model"] == "wsd:latest" for model in ok("/api/tags")["models"])
    body = {
        "model": "wsd:latest", "messages": FOX, "stream": True, "keep_alive": "5m",
        "options": {"temperature": 0, "num_ctx": 8192, "num_gpu": 0, "use_mmap": True, "repeat_penalty": 1.0},
    }
    status, headers, text = send("/api/chat", body)
    assert status == 200 and headers["Content-Type"] == "application/x-ndjson", text
    assert "".join(json.loads(line)["message"]["content"] for line in text.splitlines()) == ANSWER


@case
def librechat_chats():
    body = {
        "model": "wsd", "user": "65f0", "stream": True, "temperature": 0, "top_p": 1, "presence_penalty": 0,
        "frequency_penalty": 0, "stream_options": {"include_usage": True},
        "messages": [{"role": "system", "content": "Be brief.", "name": "instructions"}, *FOX],
    }
    assert text_of(streamed("/v1/chat/completions", body))


@case
def librechat_with_a_preset():
    body = {
        "model": "wsd", "stream": True, "presence_penalty": 0.6, "frequency_penalty": 0.6, "max_tokens": 30,
        "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}], "stop": ["||>", "\nUser:"],
    }
    assert text_of(streamed("/v1/chat/completions/", body))


@case
def sillytavern_chats():
    body = {
        "messages": [{"role": "user", "content": QUESTION, "name": "Alice"}], "model": "wsd", "temperature": 1,
        "max_tokens": 30, "stream": False, "presence_penalty": 0.1, "frequency_penalty": 0.1, "top_p": 0.9,
        "top_k": 40, "typical_p": 0.95, "top_n_sigma": 2, "xtc_probability": 0.2, "xtc_threshold": 0.1, "seed": 3,
        "repetition_penalty": 1.05, "min_p": 0.02, "mirostat": 0, "dry_multiplier": 0.8, "dry_base": 1.75,
        "dry_allowed_length": 2, "dry_penalty_last_n": -1, "dry_sequence_breakers": ["\n", ":", "\"", "*"],
    }
    assert ok("/v1/chat/completions", body)["choices"][0]["message"]["content"]


@case
def autogen_names_its_speakers():
    messages = [
        {"role": "system", "content": "Be brief.", "name": "admin"}, {"role": "user", "content": QUESTION, "name": "critic"},
        {"role": "assistant", "content": "Red.", "name": "writer"}, {"role": "user", "content": "And a frog?", "name": "critic"},
    ]
    assert ok("/v1/chat/completions", {"model": "wsd", "messages": messages})["usage"]["prompt_tokens"] > 10


@case
def answers_are_sent_back_whole():
    message = ok("/v1/chat/completions", {"model": "wsd", "messages": FOX, "logprobs": True})["choices"][0]["message"]
    message |= {"annotations": [], "reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]}
    body = {"model": "wsd", "messages": [*FOX, message, {"role": "user", "content": "And a frog?"}]}
    assert ok("/v1/chat/completions", body)["choices"][0]["message"]["content"]


@case
def aider_and_cline_chat():
    body = {"model": "wsd", "messages": FOX, "stream": True, "temperature": 0, "stream_options": {"include_usage": True},
            "extra_body": None, "parallel_tool_calls": False}
    chunks = streamed("/v1/chat/completions", body)
    assert text_of(chunks) == ANSWER and chunks[-1]["usage"]["completion_tokens"] > 3


@case
def copilot_over_ollama_shows_the_model():
    shown = ok("/api/show", {"model": "wsd:latest", "verbose": False})
    assert shown["capabilities"] == ["completion", "tools"] and shown["model_info"]["general.architecture"] == "wsd"


@case
def codex_probes_and_asks():
    probe = {"model": "wsd", "input": [], "max_output_tokens": 1, "stream": False}
    assert ok("/v1/responses", probe)["object"] == "response"
    body = {
        "model": "wsd", "instructions": "Be brief.", "stream": True, "store": False, "prompt_cache_key": "k",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
        "tools": [{"type": "web_search"}, {"type": "image_generation"}, {"type": "namespace", "name": "n", "tools": []}],
        "tool_choice": "auto", "parallel_tool_calls": False, "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "medium", "summary": "auto"}, "text": {"verbosity": "medium"}, "client_metadata": {"a": "b"},
    }
    events = streamed("/v1/responses", body, {"originator": "codex_cli_rs", "session_id": "s"})
    assert events[0]["type"] == "response.created" and events[-1]["type"] == "response.completed"


@case
def claude_code_counts_and_asks():
    system = [{"type": "text", "text": "You are a tool.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    content = [{"type": "text", "text": QUESTION, "cache_control": {"type": "ephemeral"}}]
    body = {
        "model": "wsd", "max_tokens": 64, "system": system, "messages": [{"role": "user", "content": content}],
        "metadata": {"user_id": "u"}, "stream": True, "temperature": 1, "thinking": {"type": "enabled", "budget_tokens": 1024},
        "context_management": {"edits": []}, "output_config": {"effort": "high"},
    }
    headers = {"x-api-key": "none", "anthropic-version": "2023-06-01", "anthropic-beta": "interleaved-thinking-2025-05-14"}
    events = streamed("/v1/messages?beta=true", body, headers)
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    counted = {key: body[key] for key in ["model", "system", "messages", "thinking"]}
    assert ok("/v1/messages/count_tokens?beta=true", counted, headers)["input_tokens"] > 10


@case
def claude_code_without_a_model_of_that_name():
    status, _, text = send("/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 8, "messages": FOX})
    assert status == 404 and json.loads(text)["error"]["type"] == "not_found_error"


@case
def llama_server_s_page_asks_for_properties():
    assert ok("/props")["default_generation_settings"]["n_ctx"] > 0 and len(ok("/slots")) > 0
    body = {"messages": FOX, "stream": True, "cache_prompt": True, "timings_per_token": True, "return_progress": True,
            "samplers": None, "reasoning_format": None, "id_slot": -1, "max_tokens": -1}
    assert text_of(streamed("/v1/chat/completions", body)) == ANSWER


@case
def llama_server_s_clients_count_tokens():
    tokens = ok("/tokenize", {"content": "A fox is red.", "add_special": False, "parse_special": True})["tokens"]
    assert ok("/detokenize", {"tokens": tokens})["content"] == "A fox is red."
    assert QUESTION in ok("/apply-template", {"messages": FOX})["prompt"]


@case
def continue_fills_in_text():
    body = {"model": "base", "prompt": "A fox is", "max_tokens": 8, "temperature": 0.01, "stop": ["\n"], "stream": True}
    assert streamed("/v1/completions", body)


@case
def vllm_s_benchmark_asks():
    body = {"model": "wsd", "messages": FOX, "temperature": 0, "max_completion_tokens": 8, "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True}, "ignore_eos": False,
            "request_id": "bench-1", "priority": 0}
    assert streamed("/v1/chat/completions", body)[-1]["usage"]["completion_tokens"] == 8


@case
def haystack_embeds():
    assert ok("/v1/embeddings", {"model": "base", "input": ["A", "B"], "encoding_format": "float", "user": "u"})["data"]


@case
def a_proxy_s_request_id_comes_back():
    assert send("/v1/models", headers={"x-request-id": "proxy-1"})[1]["x-request-id"] == "proxy-1"


@case
def paths_without_a_version():
    assert ok("/chat/completions", {"model": "wsd", "messages": FOX})["object"] == "chat.completion"
    assert ok("/models/")["object"] == "list"


@case
def a_browser_asks_first():
    request = urllib.request.Request(f"{SERVER}/v1/models", method="OPTIONS", headers={"Origin": "https://chat.example"})
    try:
        urllib.request.urlopen(request, timeout=60)
        raise AssertionError("no origin is listed")
    except urllib.error.HTTPError as error:
        assert error.code == 405 and "access-control-allow-origin" not in error.headers


@case
def a_typing_error_is_named_with_the_way_out():
    status, _, text = send("/v1/chat/completions", {"messages": FOX, "temprature": 1})
    message = json.loads(text)["error"]["message"]
    assert status == 400 and "temprature" in message and "leave it out" in message


run("request shapes")
