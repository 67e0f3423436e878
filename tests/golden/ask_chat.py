"""The tokens of conversations by transformers' `apply_chat_template`, for crates/tokenizer/tests/chat_transformers.rs.

    python tests/golden/ask_chat.py CHAT.JSON DIR

CHAT.JSON holds the golden conversations and templates. Prints JSON: for the template of the tokenizer in DIR, and for each
golden one, a list of conversations with their ids without and with the prompt for an answer, or null where the template
refuses.
"""

import json
import sys
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer


def ids(tokenizer, template, messages, prompt):
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=prompt, tokenize=True, return_dict=False
        )
    except (TemplateError, TypeError, KeyError, AttributeError):
        return None


def main():
    golden = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
    conversations = [
        [{"role": role, "content": content} for role, content in conversation["messages"]]
        for conversation in golden["conversations"]
    ]
    templates = [None] + [template["template"] for template in golden["templates"]]
    answers = [
        [[ids(tokenizer, template, messages, prompt) for prompt in (False, True)] for messages in conversations]
        for template in templates
    ]
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
