"""Chat templates as transformers renders them: crates/tokenizer/tests/golden/chat.json.

    python tests/golden/chat.py

The templates are our own, in the styles of well-known models and with what theirs make use of. Each is rendered for every
conversation, with and without the prompt for an answer; an error is kept as the message of `raise_exception`, or as "error".
Snippets are small templates that look at one part of Jinja or of Python's methods each.
"""
import json
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

TOKENS = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}

TEMPLATES = {
    "chatml": """{%- if messages[0]['role'] != 'system' -%}
{{ '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif -%}
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
""",
    "llama 2": """{% if messages[0]['role'] == 'system' %}
    {% set turns = messages[1:] %}
    {% set note = '<<SYS>>\\n' ~ messages[0]['content'] ~ '\\n<</SYS>>\\n\\n' %}
{% else %}
    {% set turns = messages %}
    {% set note = '' %}
{% endif %}
{% for turn in turns %}
    {% if (turn.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% set words = note + turn.content if loop.first else turn.content %}
    {% if turn.role == 'user' %}
        {{- bos_token + '[INST] ' + words.strip() + ' [/INST]' }}
    {% else %}
        {{- ' ' + words.strip() + ' ' + eos_token }}
    {% endif %}
{% endfor %}""",
    "llama 3": """{{- bos_token }}
{%- macro header(role) -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{% endmacro %}
{%- for message in messages %}
    {{- header(message.role) + '\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- header('assistant') + '\\n' }}
{%- endif %}""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages if not (message.tool_calls is defined and message.tool_calls is not none) %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate user/assistant: message " ~ loop.index) }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "qwen": """{%- if tools %}
    {{- '# Tools\\n' + tools | tojson }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thoughts) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thoughts.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "gemma": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
""",
    "phi": """{% for message in messages %}{% if message['role'] in ['system', 'user', 'assistant'] %}{{'<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n'}}{% else %}{{ raise_exception('no role ' + message['role']|upper) }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "deepseek": """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=true, system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}{% if add_generation_prompt %}{{'<｜Assistant｜>'}}{% endif %}""",
    "alpaca": """{% for message in messages %}
{% if message.role == 'system' %}
{{ message.content }}

{% elif message.role == 'user' %}
### Instruction:
{{ message.content }}

{% elif message.role == 'assistant' %}
### Response:
{{ message.content }}

{% endif %}
{% endfor %}
{% if add_generation_prompt %}
### Response:
{% endif %}
""",
    "vicuna": """{% for message in messages %}
    {%- set role = {'user': 'USER', 'assistant': 'ASSISTANT', 'system': ''}.get(message.role, message.role.title()) -%}
    {{ (role + ': ' if role else '') ~ message.content ~ (eos_token if message.role == 'assistant' else ' ') }}
{%- endfor %}
{%- if add_generation_prompt %}ASSISTANT:{% endif %}""",
    "generation": """{% for message in messages %}
{% if message.role == 'assistant' %}
<|im_start|>assistant
{% generation %}
{{ message.content }}<|im_end|>
{% endgeneration %}
{% else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{% endfor %}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif %}
""",
    "generation, trimmed": """{%- for message in messages -%}
{{ message.role }}:
{%- if message.role == 'assistant' %}
    {%- generation -%}
    {% set words = message.content %} {{ words }}
    {%- endgeneration -%}
{%- else %} {{ message.content }}
{%- endif %}|
{% endfor -%}
""",
    "all parts": """{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m | tojson }} {{ m }} {{ loop.previtem.role if loop.previtem is defined }}
{% endfor %}{{ tools }} {{ documents }} {{ add_generation_prompt }} {{ missing }}|{{ pad_token is defined }}|{{ eos_token }}""",
}

CONVERSATIONS = {
    "one": [["user", "Hi"]],
    "two": [["user", "Hi"], ["assistant", "Hello!"]],
    "system": [["system", "Be brief."], ["user", "Who are you?"], ["assistant", "A model."], ["user", "Of what?"]],
    "long": [["user", "1 + 1?"], ["assistant", "2"], ["user", "And 2 + 2?"], ["assistant", "4"], ["user", "Thanks."], ["assistant", "Welcome."]],
    "Chinese": [["system", "你是客服。"], ["user", "你好，我想退货 😀"], ["assistant", "好的，请问订单号是多少？"]],
    "white space": [["user", "  a\n\n b\t \n"], ["assistant", "\n\u3000c \x1c\n"], ["user", " \n "]],
    "empty": [["user", ""], ["assistant", ""]],
    "out of order": [["assistant", "Hello"], ["assistant", "Hello?"]],
    "unknown role": [["user", "Hi"], ["tool", "{\"a\": 1}"], ["narrator", "x"]],
    "odd text": [["user", "<b>\"quoted\" & 'single' \\n {{ x }} {% y %}</b>"], ["assistant", "<think>\nhm\n</think>\n\nyes </s> <|im_end|>"]],
    "late system": [["user", "Hi"], ["system", "Now be rude."], ["user", "Hi?"]],
}

SNIPPETS = [
    # What is printed.
    "{{ true }} {{ false }} {{ none }} {{ True }} {{ False }} {{ None }} {{ 1 }} {{ 1.0 }} {{ 1.5e10 }} {{ -3 }}",
    "{{ ['a', \"it's\", 'say \"x\"', '中\\n'] }} {{ {'a': 1, 'b': [true, none]} }} {{ ('x', 1) }} {{ ('x',) }} {{ [] }} {{ {} }}",
    "{{ [1, 'a', true] | string }} {{ none ~ true ~ 1 ~ 'x' }} {{ [true, none, 'a'] | join('-') }}",
    "{{ undefined_name }}|{{ undefined_name | default('d') }}|{{ '' | default('d', true) }}|{{ messages[0].nothing }}",
    "{{ undefined_name.attribute }}", "{{ messages[9].role }}", "{{ messages[9] is defined }} {{ messages[0].tools is defined }}",
    "{{ 'a' + 1 }}", "{{ 'a' ~ 1 }}", "{{ none + 'a' }}", "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 2 ** 3 }}",
    "{{ 'ab' * 3 }} {{ [1] + [2] }} {{ 3 in [1, 2, 3] }} {{ 'b' in 'abc' }} {{ 'role' in messages[0] }} {{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ true == 1 }}",
    "{{ 'yes' if messages else 'no' }} {{ 'x' if false }}| {{ not none }} {{ none or 'b' }} {{ '' and 'b' }}|",
    "{{ messages | length }} {{ messages[0]['content'][0] }} {{ messages[-1].role }} {{ 'héllo'[1:3] }} {{ 'abc'[::-1] }} {{ 'abcdef'[-3:-1] }}",
    # JSON.
    "{{ {'a': 'é\"\\\\/<>&\\'中\\t\\u0001\\u007f', 'b': [1, 2.5, true, none, {}], 'c': []} | tojson }}",
    "{{ {'b': 1, 'a': [1, {'x': []}, []]} | tojson(indent=2) }} {{ [] | tojson(indent=4) }} {{ 'x' | tojson }} {{ 1e20 | tojson }} {{ 0.00001 | tojson }} {{ 1.0 | tojson }}",
    "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ [1, 2] | tojson(separators=(',', ':')) }} {{ '中😀' | tojson(ensure_ascii=true) }} {{ [1] | tojson(4) }} {{ (1, 2) | tojson }}",
    "{{ undefined_name | tojson }}", "{{ messages | tojson(indent=1) }}", "{{ {1: 'a', none: 'b', true: 'c'} | tojson }}",
    # Methods of strings.
    "[{{ ' \\t\\x1fa b\\u3000\\n' | trim }}] [{{ 'xxaxx'.strip('x') }}] [{{ 'xxaxx'.lstrip('x') }}] [{{ 'xxaxx'.rstrip('x') }}] [{{ '  a '.strip() }}] [{{ 'xax' | trim('x') }}]",
    "{{ 'a,b,,c'.split(',') }} {{ ' a  b c '.split() }} {{ 'a b c d'.split(' ', 1) }} {{ ' a  b  c '.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a-b-c'.split('-', maxsplit=1) }}",
    "{{ 'a\\nb\\r\\nc\\rd\\u2028e\\n'.splitlines() }} {{ 'a\\nb\\n'.splitlines(true) }} {{ ''.splitlines() }} {{ 'a\\n\\n'.splitlines() }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.find('c') }} {{ 'abc'.find('x') }} {{ '中文中'.rfind('中') }} {{ 'abcabc'.count('b') }} {{ 'abc'.index('b') }}",
    "{{ 'abc'.index('x') }}", "{{ 'a'.append('b') }}", "{{ [].append(1) }}", "{{ messages.append(1) }}", "{{ messages[0].update({'a': 1}) }}", "{{ messages[0].pop('role') }}",
    "{{ 'hello World'.upper() }} {{ 'HELLO'.lower() }} {{ 'hello world-wide'.title() }} {{ 'hELLO wORLD'.capitalize() }} {{ 'aBc'.swapcase() }} {{ 'hello wORLD' | title }} {{ 'hello wORLD' | capitalize }} {{ 'x' | upper }}",
    "{{ 'a.b.c'.replace('.', '-') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'a b' | replace(' ', '_') }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.txt'.removesuffix('.txt') }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('=') }}",
    "{{ ', '.join(['a', 'b']) }} {{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ ' '.isspace() }} {{ ''.isspace() }} {{ 'aB1'.isalnum() }} {{ 'ab'.islower() }} {{ 'AB'.isupper() }} {{ '7'.zfill(3) }} {{ '-7'.zfill(4) }}",
    "{{ '{} and {}'.format('a', 1) }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '%s: %d' | format('a', 3) }}",
    # Tables and lists.
    "{% for key, value in {'b': 1, 'a': 2}.items() %}{{ key }}={{ value }} {% endfor %}{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 'c') }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }}",
    "{{ {'b': 1, 'a': 2} | dictsort }} {{ {'b': 1} | items | list }} {{ dict(a=1, b='x') }} {{ [3, 1, 2] | sort }} {{ [3, 1, 2] | sort(reverse=true) }} {{ [1, 2, 3] | reverse | list }} {{ 'abc' | reverse }} {{ [1, 1, 2] | unique | list }}",
    "{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | first }} {{ [1, 2, 3] | select('odd') | list }} {{ ['a', 'b'] | map('upper') | list }} {{ [1, 2, 3] | sum }} {{ [1, 2] | max }} {{ [2, 1] | min }} {{ [1, 2] | first }} {{ [1, 2] | last }}",
    "{{ [1, 2, 3].index(2) }} {{ [1, 2, 1].count(1) }} {{ range(3) | list }} {{ range(1, 7, 2) | list }} {{ '3' | int + 1 }} {{ 'x' | int }} {{ '1.5' | float }} {{ -2 | abs }} {{ 2.567 | round(1) }} {{ 3 | string + 'x' }} {{ 'abc' | list }} {{ [1, 2, 3, 4, 5] | batch(2) | list }}",
    "{% for group in messages | groupby('role') %}{{ group.grouper }}:{{ group.list | length }} {% endfor %}",
    "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\nb' | indent(width=3, first=true) }}|{{ '<a&b>' | escape }}|{{ '<a>' | e }}|{{ '<a>' | safe }}|{{ 'a b c' | wordcount }}|{{ 'one two three' | truncate(9) }}",
    # Tests.
    "{{ 'a' is string }} {{ 1 is number }} {{ 1 is integer }} {{ 1.5 is float }} {{ true is boolean }} {{ none is none }} {{ [] is sequence }} {{ {} is mapping }} {{ 'a' is iterable }} {{ [] is iterable }} {{ 1 is iterable }} {{ x is undefined }} {{ x is defined }} {{ 2 is even }} {{ 3 is odd }} {{ 4 is divisibleby(2) }} {{ 'a' is in 'abc' }} {{ 1 is eq(1) }} {{ 1 is ne 2 }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 'a' is lower }} {{ raise_exception is callable }} {{ 'a' is sequence }} {{ {} is sequence }} {{ true is number }} {{ true is integer }}",
    # Blocks, loops, scopes.
    "{% for i in range(6) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}{% for i in [] %}x{% else %}none{% endfor %}",
    "{% for i in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('a', 'b') }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.changed(i // 2) }} {% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }} {% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {% if true %}{% set y = 5 %}{% endif %}{{ y }}",
    "{% macro f(a, b='B', c=none) %}{{ a }}{{ b }}{{ c }}{{ caller() if caller }}{% endmacro %}{{ f(1) }} {{ f(1, c=2) }} {% call f(1) %}body{% endcall %} {{ f('x', b='y') }}",
    "{% macro outer(x) %}{{ inner(x) }}{% endmacro %}{% macro inner(x) %}<{{ x }}>{% endmacro %}{{ outer('a') }}{% set y %}  block {{ 1 + 1 }} {% endset %}[{{ y }}]{% filter upper %}abc{% endfilter %}{% with z = 3 %}{{ z }}{% endwith %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }} {% endfor %}{% set p, q = 1, 2 %}{{ p }}{{ q }}{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "{% raw %}{{ x }} {% y %}{% endraw %}{# comment #}a{#- trimmed -#}  b",
    "{% set ns = namespace(a=1) %}{% set ns.b = [1] + [2] %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}",
    "{{ cycler('a', 'b').next() }}", "{{ joiner(', ')() }}|",
    "{% set x = namespace() %}{% set x.found = false %}{% for m in messages %}{% if m.role == 'user' and not x.found %}{% set x.found = true %}{{ m.content }}{% endif %}{% endfor %}{{ x.found }}",
    # White space.
    "a\n{% if true %}\nb\n{% endif %}\nc\n", "a\n  {% if true %}\n  b\n  {% endif %}  \nc\n\n", "a {%- if true -%} b {%- endif %} c", "  {{ 'x' }}\n  {{- 'y' -}}  \n z", "a\n    {%+ if true %}b{% endif +%}\nc", "x\n\t{# note #}\ny\n  {#- n #}\nz", "\n\n{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\n\n", "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n", "{% if true %}\n\n\na\n{% endif %}", "{{ 'a' }}\n{{ 'b' }}\n", "a{% set x = 1 %}\n{% set y = 2 %}\nb", "{% macro m() %}\n  text\n{% endmacro %}\n[{{ m() }}]\n",
    "{% for m in messages %}\n    {%- if loop.first %}\n        {{- 'first' }}\n    {%- endif %}\n    {{- m.role }}\n{%- endfor %}\n",
    # What fails.
    "{{ raise_exception('No: ' ~ messages[0].role) }}", "{{ raise_exception('说不') }}", "{% if true %}", "{{ 'a' | no_such_filter }}", "{{ no_such_function() }}", "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{{ 1 / 0 }}", "{{ x.y.z }}", "{% endfor %}", "{{ 'unclosed }}", "{{ 'a'.no_such_method() }}", "{% unknown %}", "{{ messages.0.role }}",
    "{{ ''.__class__.__mro__ }}", "{{ messages.__class__ }}", "{{ namespace(_x=1) }}",
    "{{ 5 is divisibleby 2 }}{{ '%.2f' | format(3.14159) }}{{ 10000000000000000000000 + 1 }}{{ 0x1f }}{{ 1_000 }}", "{{ [1, 2, 3][1:] }}{{ (1, 2, 3)[0] }}{{ {'a': {'b': 1}}.a.b }}{{ {'a': 1}['a'] }}{{ [[1, 2], [3]] | sum(start=[]) }}",
    "{{ messages | map('tojson') | join('\\n') }}", "{{ messages | list | tojson }}", "{{ 'a' 'b' }}", "{{ [1,2,] }}{{ {'a':1,} }}{{ (1) }}{{ () }}", "{{ 'tab\\tnew\\nquote\\'back\\\\uni\\u4e2d\\x41' }}",
]


def render(template, messages, add_generation_prompt):
    conversation = [{"role": role, "content": content} for role, content in messages]
    try:
        texts, _ = render_jinja_template(
            [conversation], chat_template=template, add_generation_prompt=add_generation_prompt, **TOKENS
        )
        return {"text": texts[0]}
    except TemplateError as error:
        raised = type(error) is TemplateError
        return {"error": error.message if raised else "error"}
    except Exception:
        return {"error": "error"}


def main():
    templates = [
        {
            "name": name,
            "template": template,
            "results": [
                render(template, messages, prompt) for messages in CONVERSATIONS.values() for prompt in (False, True)
            ],
        }
        for name, template in TEMPLATES.items()
    ]
    turns = CONVERSATIONS["system"]
    snippets = [{"template": text, "result": render(text, turns, False)} for text in SNIPPETS]
    conversations = [{"name": name, "messages": turns} for name, turns in CONVERSATIONS.items()]
    golden = {"conversations": conversations, "templates": templates, "snippets": snippets}
    path = Path(__file__).parent / "../../crates/tokenizer/tests/golden/chat.json"
    path.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


main()
