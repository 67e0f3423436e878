"""Clients that others wrote, unmodified, against `gpt2 serve`: openai, litellm, lm-eval's local-completions, and schemathesis.

    python tests/clients/run.py target/debug/gpt2

Needs the packages of requirements.txt, and openssl, which makes a certificate. Small models are trained, and served on free ports;
nothing leaves the machine. What the clients get is held to `gpt2 generate --json` with the same settings and seed. schemathesis
makes up requests from the server's own document, and holds the answers to it.
"""

import asyncio
import hashlib
import json
import math
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

TEXT = "The quick brown fox jumps over the lazy dog. The dog sleeps. The fox runs home through the snow. "
QUESTIONS = [("The quick brown", [" fox", " dog"], 0), ("The fox runs", [" over", " home"], 1), ("The dog", [" sleeps", " jumps"], 0)]
KEY = "sk-a-key-that-is-long-enough-for-a-test"
TASK = """task: foxes
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/questions.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: ""
metric_list:
  - metric: acc
"""


def gpt2(binary, folder, *command):
    done = subprocess.run([binary, *command], cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"gpt2 {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def train(binary, folder, shape, out):
    (folder / "text.txt").write_text(TEXT * 40)
    gpt2(binary, folder, *f"train --data text.txt --val-fraction 0 --tokenizer bpe:300 --seed 1 {shape} --out {out}".split())


def written(binary, folder, *flags):
    return json.loads(gpt2(binary, folder, "generate", "-m", "m", "--json", "--top-k", "0", *flags))


@contextmanager
def serving(binary, folder, *flags, trust=None):
    """`gpt2 serve` with these flags on a free port; gives its address. It speaks TLS where it is said whom to trust."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    origin = f"{'https' if trust else 'http'}://127.0.0.1:{port}"
    process = subprocess.Popen([binary, "serve", *flags, "--port", str(port)], cwd=folder)
    try:
        while not is_ready(f"{origin}/health", trust):
            if process.poll() is not None:
                raise RuntimeError("the server ended")
            time.sleep(0.05)
        yield origin
    finally:
        process.terminate()
        process.wait()


def is_ready(health, trust):
    try:
        return urllib.request.urlopen(health, context=trust).status == 200
    except OSError:
        return False


def error_of(kind, ask):
    try:
        ask()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} does not come")


def check_openai(url, binary, folder):
    from openai import AsyncOpenAI, BadRequestError, OpenAI

    asked = {"model": "fox", "prompt": "The quick", "max_tokens": 20, "temperature": 0.8, "seed": 5}
    want = written(binary, folder, "-p", "The quick", "-n", "20", "--temperature", "0.8", "--seed", "5")["text"]
    client = OpenAI(base_url=url)
    assert [model.id for model in client.models.list()] == ["fox"]
    whole = client.completions.create(**asked)
    assert whole.choices[0].text == want and whole.usage.completion_tokens == 20, (whole, want)
    pieces = [event.choices[0].text for event in client.completions.create(**asked, stream=True)]
    assert "".join(pieces) == want and len(pieces) > 2, pieces
    messages = [{"role": "user", "content": "The quick"}]
    chat = client.chat.completions.create(model="fox", messages=messages, max_tokens=12, temperature=0, logprobs=True, top_logprobs=2)
    told = chat.choices[0].logprobs.content
    assert chat.choices[0].message.content is not None and all(len(token.top_logprobs) == 2 for token in told), chat
    vector = client.embeddings.create(model="fox", input="The quick").data[0].embedding
    assert len(vector) == 64 and abs(sum(x * x for x in vector) - 1) < 1e-5
    error = error_of(BadRequestError, lambda: client.completions.create(model="fox", prompt="The quick", max_tokens=1000))
    assert error.code == "context_length_exceeded", error

    async def crowd():
        client = AsyncOpenAI(base_url=url)
        answers = await asyncio.gather(*(client.completions.create(**asked) for _ in range(12)))
        stream = await client.chat.completions.create(model="fox", messages=messages, max_tokens=12, temperature=0, stream=True)
        said = [event.choices[0].delta.content or "" async for event in stream if event.choices]
        return [answer.choices[0].text for answer in answers], "".join(said)

    answers, said = asyncio.run(crowd())
    assert answers == [want] * 12, answers
    assert said == chat.choices[0].message.content, (said, chat)


def check_tls(_, binary, folder):
    from openai import APIConnectionError, AuthenticationError, DefaultHttpxClient, OpenAI

    if shutil.which("openssl") is None:
        print("SKIPPED check_tls: no openssl makes a certificate")
        return
    made = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=gpt2 -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", "server.key", "-out", "server.pem"]
    subprocess.run(["openssl", "req", *made.split(), *files], cwd=folder, check=True, capture_output=True)
    (folder / "keys").write_text(f"alice: sha256:{hashlib.sha256(KEY.encode()).hexdigest()}\n")
    trust = ssl.create_default_context(cafile=folder / "server.pem")
    asked = {"model": "fox", "prompt": "The fox", "max_tokens": 20, "temperature": 0.8, "seed": 6}
    want = written(binary, folder, "-p", "The fox", "-n", "20", "--temperature", "0.8", "--seed", "6")["text"]
    flags = "-m fox=m --tls-cert server.pem --tls-key server.key --api-key-file keys"
    with serving(binary, folder, *flags.split(), trust=trust) as origin:

        def pieces(key, verify):
            with OpenAI(base_url=f"{origin}/v1", api_key=key, max_retries=0, http_client=DefaultHttpxClient(verify=verify)) as client:
                return [event.choices[0].text for event in client.completions.create(**asked, stream=True)]

        got = pieces(KEY, trust)
        assert "".join(got) == want and len(got) > 2, (got, want)
        for wrong in ("none", KEY[1:]):
            error = error_of(AuthenticationError, lambda: pieces(wrong, trust))
            assert error.code == "invalid_api_key", error
        # Who does not know the certificate says nothing to the server.
        error_of(APIConnectionError, lambda: pieces(KEY, ssl.create_default_context()))


def check_litellm(url, binary, folder):
    import litellm

    want = written(binary, folder, "-p", "The dog", "-n", "9", "--temperature", "0")["text"]
    settings = {"api_base": url, "api_key": "none", "temperature": 0, "max_tokens": 9}
    got = litellm.text_completion(model="text-completion-openai/fox", prompt="The dog", **settings)
    assert got.choices[0].text == want, (got, want)
    messages = [{"role": "user", "content": "The dog"}]
    whole = litellm.completion(model="openai/fox", messages=messages, **settings).choices[0].message.content
    stream = litellm.completion(model="openai/fox", messages=messages, stream=True, **settings)
    assert "".join(event.choices[0].delta.content or "" for event in stream) == whole


def check_lm_eval(url, binary, folder):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    rows = [{"text": text, "choices": choices, "label": label} for text, choices, label in QUESTIONS]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks").mkdir()
    (folder / "tasks" / "foxes.yaml").write_text(TASK.format(folder=folder))
    arguments = f"model=fox,base_url={url}/completions,tokenizer={folder / 'm'},num_concurrent=1,max_length=128"
    tasks = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    report = simple_evaluate("local-completions", model_args=arguments, tasks=["foxes"], task_manager=tasks, log_samples=True, bootstrap_iters=0)
    # Each answer's log-probability, to the last bit that JSON and a sum leave.
    for sample in report["samples"]["foxes"]:
        text, choices = sample["doc"]["text"], sample["doc"]["choices"]
        for choice, (got, _) in zip(choices, sample["filtered_resps"]):
            whole = written(binary, folder, "-p", text + choice, "-n", "0", "--logprobs", "1")["prompt_logprobs"]
            start = len(written(binary, folder, "-p", text, "-n", "0", "--logprobs", "1")["prompt_logprobs"])
            want = sum(token["logprob"] for token in whole[start:])
            assert math.isclose(float(got), want, abs_tol=1e-4), (text, choice, got, want)
    assert report["results"]["foxes"]["acc,none"] == 1.0, report["results"]


def check_schemathesis(_, binary, folder):
    # Its desks write whole documents: little sense, and a context that holds their prompts.
    train(binary, folder, "--n-layer 1 --n-head 2 --n-embd 16 --n-ctx 512 --batch 1 --max-steps 4", "small")
    with serving(binary, folder, "-m", "m=small", "--history", "chats.sqlite") as origin:
        with urllib.request.urlopen(f"{origin}/openapi.json") as answer:
            paths = json.load(answer)["paths"]
        # Not all that its schemas allow can be met: a model's name, for one, must be that of a model.
        flags = "--seed 5 --max-examples 30 --request-timeout 30 --exclude-checks positive_data_acceptance --generation-database none"
        command = [Path(sys.executable).with_name("st"), "run", f"{origin}/openapi.json", *flags.split(), "--no-color", "--report-json-path", "report.json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "report.json").read_text())
    # All routes but the one that it got the document from.
    routes = sum(len(methods) for path, methods in paths.items() if path != "/openapi.json")
    assert report["complete"] and report["operations"]["tested"] == routes, (routes, report["operations"])


def main():
    binary = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(binary, folder, "--n-layer 2 --n-head 2 --n-embd 64 --n-ctx 128 --batch 2 --max-steps 300", "m")
        with serving(binary, folder, "-m", "fox=m") as origin:
            for check in (check_openai, check_tls, check_litellm, check_lm_eval, check_schemathesis):
                start = time.perf_counter()
                check(f"{origin}/v1", binary, folder)
                print(f"ok      {check.__name__} ({time.perf_counter() - start:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
